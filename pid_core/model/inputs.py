"""What a call of the network works on: checked, in its dtypes, with the tables of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import WrongCaptionError
from .attention import Attention
from .config import PiDConfig
from .positions import Rotation, image_rope, sine_cosine, text_rope

if TYPE_CHECKING:
    from .network import PiDNetwork


class LatentInputs(NamedTuple):
    """The latent's features [B, L, lq_width] in the compute dtype, and sigma [B, L, 1] float32."""

    features: Tensor
    sigma: Tensor


class Inputs(NamedTuple):
    """What a call works on: images x [B, 3, H, W], timestep [B], caption [B, T, W], and tables of positions.

    lq is None for PixelDiT.
    """

    x: Tensor
    timestep: Tensor
    caption: Tensor
    lq: LatentInputs | None
    patch_rope: Rotation
    text_rope: Rotation | None
    pixel_rope: Rotation
    positions: tuple[Tensor, Tensor]
    attention: Attention


def make_inputs(
    net: PiDNetwork,
    x: Tensor,
    timestep: Tensor,
    caption: Tensor,
    lq_features: Tensor | None,
    degrade_sigma: Tensor | None,
) -> Inputs:
    """The arguments of `PiDNetwork.forward`, which says what they are. Raises ValueError when a shape does not fit."""
    config, device = net.config, x.device
    rows, cols = _check(config, x, timestep, caption, lq_features, degrade_sigma)
    lq = None
    if lq_features is not None and degrade_sigma is not None:
        sigma = _per_patch(degrade_sigma, x.shape[0], rows * cols).to(device, torch.float32)
        lq = LatentInputs(lq_features.to(net.compute_dtype), sigma)
    caption = caption[:, : config.caption_length]
    text, half = caption.shape[1], config.pixel_hidden_size // 2
    rope = {"reference": config.rope_grid, "theta": config.rope_theta, "device": device}
    return Inputs(
        x, timestep, caption, lq,
        image_rope(rows, cols, config.head_dim, **rope),
        text_rope(text, config.head_dim, theta=config.text_rope_theta, device=device) if config.text_rope else None,
        image_rope(rows, cols, config.pixel_head_dim, **rope),
        (sine_cosine(0, x.shape[-2], half, device=device), sine_cosine(0, x.shape[-1], half, device=device)),
        net.attention,
    )  # fmt: skip


def _per_patch(sigma: Tensor, batch: int, tokens: int) -> Tensor:
    """[B] or [B, L] -> [B, L, 1]."""
    values = sigma.reshape(batch, -1, 1)
    if values.shape[1] not in (1, tokens):
        raise ValueError(
            f"degrade_sigma is one value an image, or one each of {tokens} patches; got {list(sigma.shape)}"
        )
    return values.expand(-1, tokens, 1)


def patch_grid(config: PiDConfig, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of patches. Raises ValueError for sides that are no multiples of a patch."""
    patch = config.patch_size
    if height % patch or width % patch or not height or not width:
        raise ValueError(f"the image is {width} x {height}; both sides must be multiples of {patch} pixels")
    return height // patch, width // patch


def _check(
    config: PiDConfig, x: Tensor, timestep: Tensor, caption: Tensor, features: Tensor | None, sigma: Tensor | None
) -> tuple[int, int]:
    """The patch grid of x. Raises ValueError in one line for what does not fit it or the checkpoint."""
    if x.ndim != 4 or x.shape[1] != config.in_channels:
        raise ValueError(f"x must be [B, {config.in_channels}, H, W], got {list(x.shape)}")
    if caption.ndim != 3 or caption.shape[-1] != config.caption_width or not caption.shape[1]:
        raise WrongCaptionError(config.caption_width, caption.shape)
    counts = {"timestep": timestep.numel(), "caption": caption.shape[0]}
    if config.has_latent:
        if sigma is None:
            raise ValueError("PiD needs degrade_sigma, the latent's noise level: 0 for a clean one")
        counts["degrade_sigma"] = sigma.shape[0] if sigma.ndim else 1
    for name, count in counts.items():
        if count != x.shape[0]:
            raise ValueError(f"{name} is for {count} images, x holds {x.shape[0]}")
    rows, cols = patch_grid(config, *x.shape[-2:])
    if not config.has_latent and features is not None:
        raise ValueError("this checkpoint is PixelDiT: it draws from text alone and takes no lq_features")
    if config.has_latent and features is None:
        raise ValueError("PiD needs the latent: give lq_features, made by encode_lq")
    if features is not None and features.shape[:2] != (x.shape[0], rows * cols):
        raise ValueError(
            f"lq_features are for {features.shape[0]} images of {features.shape[1]} tokens, "
            f"x has {x.shape[0]} of {rows * cols}"
        )
    return rows, cols
