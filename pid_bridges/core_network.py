"""ComfyUI core's own PiD network with the weights of one of ours, to be measured beside it.

Weights are shared, but for the pixel blocks' modulation, which core keeps in two halves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CoreCall = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
# Fields of a configuration by core's names for them: its code fixes them at the released sizes.
_SIZES = {
    "hidden_size": "hidden_size",
    "num_groups": "num_heads",
    "pixel_hidden_size": "pixel_hidden_size",
    "pixel_attn_hidden_size": "pixel_attn_size",
    "pixel_num_groups": "pixel_num_heads",
    "patch_depth": "patch_depth",
    "pixel_depth": "pixel_depth",
    "txt_embed_dim": "caption_width",
    "txt_max_length": "caption_length",
    "lq_hidden_dim": "lq_width",
    "lq_num_res_blocks": "lq_res_blocks",
    "lq_interval": "lq_interval",
}


def core_calls(net: torch.nn.Module, folder: Path, device: torch.device) -> Mapping[str, CoreCall]:
    """folder: with ComfyUI's code. See `calls_of`."""
    from pid_bridges.comfyui import import_comfy

    import_comfy(folder, device)
    return calls_of(net)


def calls_of(net: Any) -> Mapping[str, CoreCall]:
    """By the attention that core runs: the one that ComfyUI takes here, and PyTorch's where that is another.

    Core's forward, (x [B, 3, H, W], timestep [B], caption [B, T, W], latent [B, C, h, w], degrade_sigma [B]) -> the
    velocity [B, 3, H, W]. ComfyUI must be importable. Raises ValueError where core does not have this network.
    """
    config = net.config
    if config.prediction != "velocity" or config.family == "rgb":
        raise ValueError("ComfyUI core has no network of this kind: this model runs in this pack alone")
    try:
        import comfy.ldm.pixeldit.model as model
        import comfy.ldm.pixeldit.modules as modules
        from comfy.ldm.modules import attention
        from comfy.ldm.pixeldit.pid import PidNet
    except ImportError as error:
        raise ValueError(f"this ComfyUI has no PiD of its own ({error}): use ComfyUI v0.25.0 or newer") from None
    core, dtype = _build(net, PidNet), net.compute_dtype
    chosen = {attention.optimized_attention.__name__: attention.optimized_attention}
    chosen.setdefault(attention.attention_pytorch.__name__, attention.attention_pytorch)

    def call(attend, x: Tensor, timestep: Tensor, caption: Tensor, latent: Tensor, sigma: Tensor) -> Tensor:
        before = [one.optimized_attention for one in (model, modules)]
        model.optimized_attention = modules.optimized_attention = attend
        try:
            context = caption.to(dtype)
            return core(x.to(dtype), timestep, context=context, lq_latent=latent, degrade_sigma=sigma)
        finally:
            model.optimized_attention, modules.optimized_attention = before

    return {name: partial(call, attend) for name, attend in chosen.items()}


def _build(net: Any, kind: type) -> Any:
    import comfy.model_detection
    import comfy.ops

    dtype, width = net.compute_dtype, net.config.pixel_hidden_size
    state = {
        name: value.to(dtype)
        for own, tensor in net.state_dict().items()
        for name, value in split_modulation(own, tensor, width)
    }
    sizes = comfy.model_detection.detect_unet_config(state, "")
    if not sizes:
        raise ValueError("this ComfyUI does not know the network: use a newer one")
    sizes = sizes | {theirs: getattr(net.config, ours) for theirs, ours in _SIZES.items()}
    try:
        core = kind(**sizes, dtype=dtype, device="meta", operations=comfy.ops.disable_weight_init).eval()
        core.load_state_dict(state, strict=True, assign=True)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"this ComfyUI's network does not take these weights: {str(error).splitlines()[0]}") from None
    return core.requires_grad_(False)


def split_modulation(name: str, value: Tensor, width: int) -> list[tuple[str, Tensor]]:
    """A tensor of ours as core stores it: a pixel block's modulation as attention's half and the MLP's.

    Its rows are [pixel, 6, width]: the first three and the last three of every pixel apart. Any other is left as it is.
    """
    if ".adaLN_modulation.0." not in name:
        return [(name, value)]
    halves = value.unflatten(0, (-1, 6 * width)).chunk(2, dim=1)
    return [
        (name.replace("modulation.0.", f"modulation_{part}."), half.flatten(0, 1).contiguous())
        for part, half in zip(("msa", "mlp"), halves, strict=True)
    ]
