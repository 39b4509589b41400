"""What is asked of a crop: pictures out and x, [B, 3, H, W] in [-1, 1]. Each is a mean over crops of logarithms, in
which a gentle ramp counts as much as a thicket, and clean crops as much as noisy ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.crops import SCALE

GREY = torch.tensor([0.299, 0.587, 0.114])
LEAST = 1 / 127.5  # missing detail below this deviation is not told apart: an 8-bit file has no more to say
MEAN = 0.8  # of the size of Gaussian noise with deviation 1


def decibels(out: Tensor, x: Tensor) -> Tensor:
    """Squared error. What would be seen in no 8-bit picture is not chased."""
    return (out - x).square().mean((1, 2, 3)).add(2e-5).log().mean()


def absolute(out: Tensor, x: Tensor) -> Tensor:
    return ((out - x).square() + 1e-6).sqrt().mean((1, 2, 3)).add(4e-3).log().mean()


def unkept(out: Tensor, x: Tensor) -> Tensor:
    """Squared error that is still there when the picture is made small again."""
    return F.avg_pool2d(out - x, SCALE).square().mean((1, 2, 3)).add(1e-5).log().mean()


def missing(out: Tensor, x: Tensor) -> Tensor:
    """The brightness that is not there, less its mean over each small pixel: [B, 1, H, W]."""
    rest = torch.einsum("c,bchw->bhw", GREY.to(x), x - out)[:, None]
    return rest - F.interpolate(F.avg_pool2d(rest, SCALE), scale_factor=SCALE)


def misjudged(strength: Tensor, rest: Tensor) -> Tensor:
    """How far strength is from the deviation of the detail that is missing all around, both [B, 1, H, W].

    All around: the least of the near means. An edge that lies a little off leaves much along a line, and grain there
    would look like sand.
    """
    near = F.avg_pool2d(F.pad(rest.abs(), (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    around = -F.max_pool2d(-near, 9, stride=1, padding=4) / MEAN
    return ((strength.abs() + LEAST).log() - (around + LEAST).log()).abs().mean()
