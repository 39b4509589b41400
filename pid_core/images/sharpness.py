"""How steep a picture's edges are, beside its source plainly enlarged."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..latents.reference import resize
from .blur import gaussian
from .slopes import slopes

SMOOTHED = 1.0  # pixels of the source: its grain shows no edges
TOGETHER = 1.5  # pixels of the source: the reach of one edge's direction
EDGES = 0.05  # share of the source's pixels that are taken for edges
FAINT = 3e-4  # squared slope of the source below which nothing is an edge; more than noise of 25/255 makes
FEWEST = 0.002  # share of the source's pixels; a picture with fewer edges has none to tell by
CELL = 8  # pixels of the source: of such cells' means contrast is told
MOST_GAIN = 2.0
ROWS = 512  # of the result, worked on at once


def edge_steepness(result: Tensor, source: Tensor) -> float:
    """How many times as steep the edges of a picture [H, W] are as those of its source [h, w], enlarged bicubic.

    Both grey, in [0, 1]. NaN where the source has no edges. The squared slope along an edge is taken off that across
    it: of grain and of texture without a direction nothing is left in the mean, of an edge of height h and width w the
    sum h^2 / w. The directions are those of the source's structure tensor (W. Foerstner and E. Guelch, 1987). More
    contrast all over is no steepness, and is taken out.
    """
    along, across = _directions(source)
    if int(((along != 0) | (across != 0)).sum()) < FEWEST * source.numel():
        return math.nan
    ours, theirs = (_directed(image, along, across) for image in (result, resize(source, result.shape)))
    gain = _gain(result, source)
    return max(ours, 0.0) / (theirs * gain * gain) if theirs > 0 else math.nan


def _directions(source: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin, [h, w] each, of twice the angle of the slope at the source's edges; 0 where none is."""
    down, across = slopes(gaussian(source.float(), SMOOTHED))
    even, odd = (gaussian(part, TOGETHER) for part in (across.square() - down.square(), 2 * across * down))
    strength = torch.hypot(even, odd)
    least = strength.flatten().kthvalue(max(1, round(strength.numel() * (1 - EDGES)))).values
    edge = strength >= least.clamp_min(FAINT)
    strength = strength.clamp_min(FAINT)
    return torch.where(edge, even / strength, 0.0), torch.where(edge, odd / strength, 0.0)


def _directed(image: Tensor, even: Tensor, odd: Tensor) -> float:
    """The sum, over the edges, of the squared slope across them less that along them."""
    (height, width), total = image.shape, 0.0
    cols = (torch.arange(width, device=image.device) * even.shape[1]).div(width, rounding_mode="floor")
    for top in range(0, height, ROWS):
        rows = torch.arange(top, min(top + ROWS, height), device=image.device)
        lines = torch.cat([rows[:1] - 1, rows, rows[-1:] + 1]).clamp(0, height - 1)
        down, across = slopes(image[lines])[:, 1:-1]
        at = rows.mul(even.shape[0]).div(height, rounding_mode="floor")[:, None], cols
        part = (across.square() - down.square()) * even[at] + 2 * across * down * odd[at]
        total += float(part.sum())
    return total


def _gain(result: Tensor, source: Tensor) -> float:
    """The contrast of coarse means of the result over that of the source's; 1 where there is none."""
    rows, cols = (max(1, round(side / CELL)) for side in source.shape)
    ours, theirs = (
        F.adaptive_avg_pool2d(image.float()[None, None], (rows, cols)).flatten() for image in (result, source)
    )
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    power = float(theirs.square().sum())
    gain = float((ours * theirs).sum()) / power if power > 0 else 1.0
    return min(max(gain, 1 / MOST_GAIN), MOST_GAIN)
