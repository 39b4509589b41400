"""Images as the core takes them, from those that other software hands on; and small ones to look at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WHITE = {torch.uint8: 255, torch.uint16: 65535, torch.bool: 1}  # of images of whole numbers


def as_floats(image: Tensor) -> Tensor:
    """An image in a floating-point dtype that the core computes with, white 1.

    Raises KeyError for whole numbers whose white is not in WHITE.
    """
    if not image.is_floating_point():
        return image.to(torch.float32) / WHITE[image.dtype]
    return image.to(torch.float32) if image.dtype == torch.float64 or image.element_size() < 2 else image


def with_colour(image: Tensor) -> Tensor:
    """[..., 1 to 4] -> [..., 3 or 4]: grey becomes three channels, with its transparency where it has some."""
    if image.shape[-1] >= 3:
        return image
    grey, alpha = image[..., :1].expand(*image.shape[:-1], 3), image[..., 1:]
    return torch.cat([grey, alpha], dim=-1) if alpha.shape[-1] else grey


def eight_bits(image: Tensor, longest: int | None = None) -> Tensor:
    """[H, W, C] in [0, 1], C of 1, 3 or 4 -> uint8 [h, w, 3] on the CPU, made smaller where a side is above `longest`.

    NaN counts as 0.
    """
    pixels = image[..., :3].detach().float().cpu().nan_to_num().movedim(-1, 0).expand(3, -1, -1)
    scale = 1 if longest is None else min(1, longest / max(pixels.shape[1:]))
    if scale < 1:
        size = [max(1, round(side * scale)) for side in pixels.shape[1:]]
        pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    return (pixels.clamp(0, 1) * 255).round().byte().movedim(0, -1).contiguous()
