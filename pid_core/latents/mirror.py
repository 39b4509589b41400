"""Pictures that go on beyond their edges as their own mirror image."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored(start: int, count: int, size: int, device: torch.device) -> Tensor:
    """Indices start, start + 1, ... of a side of `size` pixels that goes on as its own mirror image at both ends."""
    index = torch.arange(start, start + count, device=device) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def extend(image: Tensor, height: int, width: int) -> Tensor:
    """[..., h, w] -> [..., height, width]: what is missing below and on the right is mirrored, if anything is."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    rows, cols = (
        mirrored(0, whole, side, image.device) for whole, side in zip((height, width), image.shape[-2:], strict=True)
    )
    return image[..., rows, :][..., cols]
