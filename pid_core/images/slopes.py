"""The slope of one channel at every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def slopes(image: Tensor) -> Tensor:
    """[H, W] -> down and across, [2, H, W], by central differences; beyond the edges it goes on as they are."""
    padded = F.pad(image.float()[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    return torch.stack([padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]]) / 2
