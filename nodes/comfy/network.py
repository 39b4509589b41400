"""PiDNetwork with ComfyUI's call signature, operations and attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.ops
import comfy.quant_ops
import torch
import torch.nn.functional as F
from comfy.cli_args import args
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from ...pid_core import PiDConfig, PiDNetwork
from ...pid_core.model.attention import attend
from ...pid_core.model.compiled import Compiled
from ...pid_core.model.modulation import Level
from ...pid_core.model.ops import LENDERS, Weights, is_as_built, outputs
from ...pid_core.progress import OnPart
from .comfy_internals import is_plain_linear, is_quantised, layers_that_cast, runs_quantised
from .quantised import without_memory


class ComfyPiDNetwork(PiDNetwork):
    """The `diffusion_model` of a PiDKitModel; tensor names are those of NVIDIA's file.

    Built without memory: its weights are assigned from the checkpoint.
    """

    def __init__(self, config: PiDConfig, *, dtype: torch.dtype, device=None, operations):
        super().__init__(config, dtype=dtype, device="meta", operations=without_memory(operations, dtype))
        self.dtype = dtype
        self._exact = False
        self._used = "none yet"

    def forward(  # type: ignore[override]  # as ComfyUI calls a network
        self, x: Tensor, timesteps: Tensor, context: Tensor, transformer_options=None, **kwargs
    ) -> Tensor:
        """x [B, 3, H, W], timesteps [B], context [B, T, W]; the rest as in `_forward`, by keyword."""
        options = transformer_options or {}
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, options, **kwargs)

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        transformer_options: dict,
        *,
        degrade_sigma: Tensor | None = None,
        lq_latent: Tensor | None = None,
        lq_features: Tensor | None = None,
        on_part: OnPart | None = None,
        level: Level | None = None,
        **_,
    ) -> Tensor:
        function = _attention_for(x.device)
        override = transformer_options.get("optimized_attention_override")
        ours = override is None and _nothing_chosen(x.device)
        self._used = getattr(override or (attend if ours else function), "__name__", type(override).__name__)

        if lq_features is None and lq_latent is not None:
            lq_features = self.encode_lq(lq_latent, *x.shape[-2:])

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if ours:
                return attend(q, k, v)
            return function(
                q, k, v, q.shape[1],
                skip_reshape=True,
                skip_output_reshape=True,
                transformer_options=transformer_options,
            )  # fmt: skip

        options: dict[str, Any] = {
            "lq_features": lq_features,
            "degrade_sigma": degrade_sigma,
            "on_part": on_part,
            "level": level,
        }
        if self._exact:
            return super().forward(x, timesteps, context, **options)
        self.attention = attention
        try:
            return super().forward(x, timesteps, context, **options)
        finally:
            self.attention = attend  # the other would keep what this run's options hold

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        self._exact = True
        try:
            with super().in_float32():
                yield
        finally:
            self._exact = False

    def _attention_name(self) -> str:
        return super()._attention_name() if self._exact else self._used

    @contextmanager
    def _widened(self) -> Iterator[None]:
        # ComfyUI casts a layer's weights to its input's dtype (and does not multiply in 8 bits) where a function is
        # to be run on them, wherever and in whatever form they are kept
        layers = list(layers_that_cast(self))
        functions = [m.weight_function for m in layers]
        for layer in layers:
            layer.weight_function = [*layer.weight_function, _unchanged]
        try:
            yield
        finally:
            for layer, own in zip(layers, functions, strict=True):
                layer.weight_function = own


def _unchanged(weight: Tensor) -> Tensor:
    return weight


def compiled_of(net: torch.nn.Module) -> Compiled | None:
    """How the loader's choice compiles a network; None where it does not, and for ComfyUI's own PiD."""
    return getattr(getattr(net, "driver", None), "compiled", None)


_run = object()  # stands for the present state of all weights


def weights_changed() -> None:
    """To be called where a run begins, and where hooks change weights within one."""
    global _run
    _run = object()


def _lent_by_comfyui(layer, device: torch.device, dtype: torch.dtype) -> Weights:
    """Wherever ComfyUI keeps them, in whatever form and with whatever patches; asked once per run.

    They are small: norms, a gate's one row, a pixel's MLP. Asking costs the host more than their kernel costs the card.
    """
    if torch.compiler.is_compiling():  # the graph holds how they are asked for
        return _plain(*comfy.ops.cast_bias_weight(layer, dtype=dtype, device=device, bias_dtype=dtype))
    key, entry = (_run, device, dtype), getattr(layer, "pidkit_lent", None)
    if entry is None or entry[0] != key:
        lent = comfy.ops.cast_bias_weight(layer, dtype=dtype, device=device, bias_dtype=dtype, offloadable=True)
        try:
            weight, bias = _plain(*lent[:2])
            entry = layer.pidkit_lent = key, (weight.detach().clone(), bias if bias is None else bias.detach().clone())
        finally:
            comfy.ops.uncast_bias_weight(layer, *lent)
    return entry[1]


def _plain(weight: Tensor, bias: Tensor | None) -> Weights:
    return _dequantised(weight), bias if bias is None else _dequantised(bias)


def _dequantised(tensor: Tensor) -> Tensor:
    return tensor.dequantize() if isinstance(tensor, comfy.quant_ops.QuantizedTensor) else tensor


LENDERS[comfy.ops.CastWeightBiasOp] = _lent_by_comfyui


@outputs.register(comfy.ops.CastWeightBiasOp)
def _by_weights_brought_once(layer, inputs: list[Tensor]) -> list[Tensor]:
    """As the layer itself does it, but for the bringing. Layers that do more (quantised ones) are called."""
    mixed = runs_quantised(layer) and not is_quantised(layer)
    if not is_as_built(layer) or not (mixed or is_plain_linear(layer)):
        return [layer(x) for x in inputs]
    options = {"compute_dtype": inputs[0].dtype} if mixed else {}
    lent = comfy.ops.cast_bias_weight(layer, inputs[0], offloadable=True, **options)
    try:
        return [F.linear(x, *lent[:2]) for x in inputs]
    finally:
        comfy.ops.uncast_bias_weight(layer, *lent)


def _nothing_chosen(device: torch.device) -> bool:
    """Whether ComfyUI would take PyTorch's attention on this NVIDIA card only because no flag or package says else."""
    nvidia = device.type == "cuda" and torch.version.cuda is not None
    return nvidia and optimized_attention is attention_pytorch and not args.use_pytorch_cross_attention


def _attention_for(device: torch.device):
    """ComfyUI's choice. On the CPU that is four times as slow as PyTorch's: only if a flag asks for it."""
    chosen = args.use_split_cross_attention or args.use_quad_cross_attention
    return attention_pytorch if device.type == "cpu" and not chosen else optimized_attention
