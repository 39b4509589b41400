"""A Gaussian blur of one channel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian(channel: Tensor, sigma: float) -> Tensor:
    """[H, W] float32, blurred with standard deviation `sigma` in pixels; beyond the edges it goes on as they are."""
    margin = math.ceil(3 * sigma)
    reach = torch.arange(-margin, margin + 1, device=channel.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (reach / sigma).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    padded = F.pad(channel[None, None], (margin,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.mT)[0, 0]
