"""What a restored picture is measured by, beside its original. Pictures are [1, 3, H, W] in [0, 1] of one size."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pid_core.images import psnr as quality

LUMA = (0.299, 0.587, 0.114)


psnr = partial(quality.psnr, span=1)


def mean_gradient(image: Tensor) -> float:
    """Mean |dx| plus mean |dy|, any shape [..., H, W]."""
    return float(image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean())


def luma(image: Tensor) -> Tensor:
    """[1, 3, H, W] -> [H, W]."""
    return torch.einsum("c,chw->hw", image.new_tensor(LUMA), image[0])


def spectrum(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Power of the luma under a Hann window [H, W], and the frequencies down [H, 1] and across [1, W], cycles/pixel."""
    grey = luma(image).double()
    height, width = grey.shape
    window = torch.hann_window(height, dtype=grey.dtype)[:, None] * torch.hann_window(width, dtype=grey.dtype)
    power = torch.fft.fft2((grey - grey.mean()) * window).abs().square()
    down, across = (torch.fft.fftfreq(n, dtype=grey.dtype) for n in (height, width))
    return power, down[:, None], across[None]


def band_power(image: Tensor, low: float, high: float) -> float:
    """Power of the luma at radial frequencies from `low` to `high`, cycles/pixel."""
    power, down, across = spectrum(image)
    radius = torch.hypot(down, across)
    return float(power[(radius >= low) & (radius < high)].sum())


def lattice(image: Tensor, period: int, near: float = 0.03, far: float = 0.0625) -> float:
    """How far the spectrum humps around the multiples of 1 / period, above a quarter cycle: 1 where it is smooth.

    A pattern that repeats from patch to patch puts its power there, more or less of it from place to place. The
    geometric mean, over those frequencies, of the power density within `near` of them to that from `near` to `far`.
    """
    power, down, across = spectrum(image)
    ratios = []
    for k in range(period // 2 + 1):
        for m in range(-(period // 2) + 1, period // 2 + 1):
            if max(k, abs(m)) < period / 4 or (k == 0 and m < 0):
                continue
            away = torch.hypot(wrapped(down - k / period), wrapped(across - m / period))
            inner, outer = away < near, (away >= near) & (away < far)
            ratios.append(float(power[inner].mean() / power[outer].mean()))
    return math.exp(sum(math.log(r) for r in ratios) / len(ratios))


def wrapped(frequency: Tensor) -> Tensor:
    """The same frequency in [-0.5, 0.5)."""
    return (frequency + 0.5) % 1 - 0.5


def fine(image: Tensor) -> Tensor:
    """The luma less its 5 x 5 mean, [H, W]."""
    grey = luma(image)[None, None]
    return (grey - F.avg_pool2d(F.pad(grey, (2, 2, 2, 2), mode="reflect"), 5, stride=1))[0, 0]


def phase_spread(image: Tensor, patch: int) -> float:
    """Deviation over mean of the fine detail's energy by place in the patch: 0 where every place has the same."""
    energy = fine(image).square()
    height, width = (side // patch * patch for side in energy.shape)
    phases = energy[:height, :width].view(height // patch, patch, width // patch, patch).mean((0, 2))
    return float(phases.std(unbiased=False) / phases.mean())


def flat_detail(image: Tensor, original: Tensor, block: int = 16) -> float:
    """Fine detail relative to the original's, in the quarter of its blocks that have least."""
    ours, theirs = (F.avg_pool2d(fine(x).square()[None], block).flatten() for x in (image, original))
    quiet = theirs.argsort()[: max(1, len(theirs) // 4)]
    return math.sqrt(float(ours[quiet].sum() / theirs[quiet].sum().clamp_min(1e-12)))
