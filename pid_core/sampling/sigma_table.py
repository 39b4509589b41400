"""Noise levels by index, so that evenly spaced schedulers land on the distilled student's levels.

ComfyUI's "simple" scheduler with n steps reads a rising table of 1000 levels at int(1000 * i / n) from its
top. The student's levels stand where 4, 3 and 2 steps look for them, and the table is straight in between.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .schedule import DISTILLED_SIGMAS

SIZE = 1000
SMALLEST_STEP = 1e-4

# Both 3 and 4 steps look for 0.866 and 0.342, at different places. In between the level all but stands still:
# it falls by about ten float32 steps, so that every schedule of up to 100 steps still falls strictly.
_FLAT = 9e-7


def sigma_table() -> Tensor:
    """float32 [1000], rising from 0.0014 to 0.999; only neighbours on the two flat stretches may be equal.

    "simple" gives the student's own list with 4 and 2 steps (bit for bit) and with 3 (within 1e-6).
    """
    top, high, middle, low, end = (float(torch.tensor(s)) for s in DISTILLED_SIGMAS)
    anchors = [
        (0, top),
        (SIZE // 4, high),
        (SIZE // 3, high * (1 - _FLAT)),
        (SIZE // 2, middle),
        (2 * SIZE // 3, low * (1 + _FLAT)),
        (3 * SIZE // 4, low),
        (SIZE, end),
    ]
    pieces = [
        torch.linspace(a, b, j - i + 1, dtype=torch.float64)[:-1] for (i, a), (j, b) in itertools.pairwise(anchors)
    ]
    return torch.cat(pieces).flip(0).float()


def tidy_sigmas(sigmas: Tensor) -> Tensor:
    """A falling schedule [n + 1] without steps too small to take; the last entry stays.

    Values from the table's flat stretches go back to the student's exact levels. Steps under 1e-4 come from
    there too; multistep samplers would divide by almost nothing. A single step from the top (0.999, or NaN as
    "kl_optimal" gives) becomes the reference's 1 -> 0.
    """
    values = sigmas.cpu().tolist()
    last = len(values) - 1
    if last == 1 and values[1] == 0 and (math.isnan(values[0]) or _near(values[0], DISTILLED_SIGMAS[0])):
        return torch.tensor([1.0, 0.0]).to(sigmas)
    values = [next((s for s in DISTILLED_SIGMAS if _near(v, s)), v) for v in values]
    indices = [0]
    for i in range(1, last):
        if values[indices[-1]] - values[i] >= SMALLEST_STEP:
            indices.append(i)
    if len(indices) > 1 and values[last] > 0 and values[indices[-1]] - values[last] < SMALLEST_STEP:
        indices.pop()
    return torch.tensor([values[i] for i in [*indices, last]]).to(sigmas)


def _near(value: float, level: float) -> bool:
    return abs(value - level) <= 2 * _FLAT * level
