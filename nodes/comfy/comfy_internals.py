"""What this pack reads of ComfyUI that ComfyUI promises to nobody. All of it stands here.

Where a later ComfyUI calls a value otherwise, one line says that it is missing. What is only asked whether it is there
answers no then: tests/comfyui/test_internals.py sees each answer yes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.ops
import comfy.quant_ops
import comfyui_version
import torch
from torch import Tensor, nn

from ...pid_core.errors import prints_bare

# Fields of ComfyUI's PidNet: by the name PiDConfig has for each, the path to it.
PID_SIZES = {
    "in_channels": "in_channels",
    "patch_size": "patch_size",
    "hidden_size": "hidden_size",
    "num_heads": "num_groups",
    "patch_depth": "patch_depth",
    "mlp_size": "patch_blocks.0.mlp_x.w1.out_features",
    "pixel_hidden_size": "pixel_hidden_size",
    "pixel_attn_size": "pixel_attn_hidden_size",
    "pixel_num_heads": "pixel_num_groups",
    "pixel_depth": "pixel_depth",
    "caption_width": "txt_embed_dim",
    "caption_length": "txt_max_length",
    "latent_channels": "lq_proj.latent_channels",
    "latent_down": "lq_proj.latent_spatial_down_factor",
    "sr_scale": "lq_proj.sr_scale",
    "lq_width": "lq_proj.hidden_dim",
    "lq_interval": "lq_proj.interval",
}


@prints_bare
class UnknownComfyUIError(ValueError):
    """This ComfyUI is built otherwise than the pack knows, said for people."""


def read(owner: Any, path: str, what: str) -> Any:
    """owner's attribute at a path such as "a.0.b"; what: whose it is, in words. Raises UnknownComfyUIError."""
    found = owner
    for name in path.split("."):
        try:
            found = found[int(name)] if name.isdecimal() else getattr(found, name)
        except (AttributeError, IndexError):
            raise UnknownComfyUIError(
                f"{what} of ComfyUI {comfyui_version.__version__} has no {path}, which this pack reads: update "
                "ComfyUI-PiDKit, or take an older ComfyUI"
            ) from None
    return found


PLAIN_LINEAR = read(comfy.ops, "disable_weight_init.Linear.forward_comfy_cast_weights", "the operations")


def is_core_pid(net: nn.Module | None) -> bool:
    """Whether it is ComfyUI's own PiD network."""
    return hasattr(net, "lq_proj")


def core_pid_is_v15(net: nn.Module) -> bool:
    return getattr(net, "pit_lq_inject", False)  # ComfyUI knows v1.5 since v0.28


def core_pid_sizes(net: Any) -> dict[str, Any]:
    """Fields of PiDConfig, from ComfyUI's own PiD network."""
    sizes = {field: read(net, path, "the PiD model") for field, path in PID_SIZES.items()}
    sizes["pixel_mlp_size"] = 4 * sizes["pixel_hidden_size"]
    return sizes | {"latent_unpack": getattr(net.lq_proj, "latent_unpatchify_factor", 1)}


def caption_tokenizer(clip) -> tuple[str, Any]:
    """The encoder's name among a CLIP's, and the SentencePiece processor in it."""
    what = "the text encoder"
    name = read(clip, "tokenizer.clip", what)
    return read(clip, "tokenizer.clip_name", what), read(clip, f"tokenizer.{name}.tokenizer.tokenizer", what)


def is_patched(clip) -> bool:
    """Whether a text encoder is another than its file's: a LoRA, hooks, a layer to stop at."""
    what = "the text encoder"
    hooks, layer = read(clip, "patcher.forced_hooks", what), read(clip, "layer_idx", what)
    return bool(read(clip, "patcher.patches", what)) or hooks is not None or layer is not None


def can_run_quantised() -> bool:
    """Whether the package that runs quantised layers is installed."""
    return getattr(comfy.quant_ops, "_CK_AVAILABLE", True)


def quantised_linear(shape: Sequence[int]) -> comfy.ops.CastWeightBiasOp:
    """A Linear that takes a quantised weight of this shape, as its file has it."""
    layer = comfy.ops.mixed_precision_ops({}, torch.float32).Linear(shape[-1], shape[0], bias=False)
    for name in ("_orig_shape", "factory_kwargs"):
        read(layer, name, "the layer for quantised weights")
    layer._orig_shape = tuple(shape)  # of a packed weight it cannot be told
    return layer


def takes_quantised(operations: type) -> bool:
    """Whether these operations build layers for quantised weights."""
    return hasattr(operations, "_quant_config")


def runs_quantised(layer: nn.Module) -> bool:
    """Whether ComfyUI runs this layer on a quantised weight, if it has one."""
    return hasattr(layer, "factory_kwargs")


def is_quantised(layer: nn.Module) -> bool:
    """Whether a layer for which `runs_quantised` holds has a quantised weight."""
    return getattr(layer, "layout_type", None) is not None


def is_plain_linear(layer: nn.Module) -> bool:
    """Whether ComfyUI runs the layer as an ordinary Linear whose weight it casts."""
    return getattr(type(layer), "forward_comfy_cast_weights", None) is PLAIN_LINEAR


def layers_that_cast(net: nn.Module) -> Iterator[comfy.ops.CastWeightBiasOp]:
    """Layers whose weights ComfyUI casts when they are called."""
    return (layer for layer in net.modules() if hasattr(layer, "comfy_cast_weights"))


def dtype_as_built(module: nn.Module, leaf: str) -> torch.dtype | None:
    """The dtype a parameter was built with: some layers stay float32 in every dtype of the network.

    None where the layer converts what it is given itself, as those for quantised weights do.
    """
    # ComfyUI keeps it beside the parameter, which its lazy layers do not have yet
    parameter: Tensor | None = getattr(module, leaf, None)
    return getattr(module, f"{leaf}_comfy_model_dtype", None) or getattr(parameter, "dtype", None)
