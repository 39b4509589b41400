"""Whether the borders of context windows show in a picture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..latents.reference import resize
from ..windows.plan import WindowPlan

NEAR = (-32, -16, 16, 32)  # lines beside a border it is compared with: at the same place in every network's patch
SIDES = slice(8, 24)  # pixels away from a line that tell what lies on either side: an edge drawn steeper ends before
FAR = (-48, 48)  # lines beside a border that tell how much brightness jumps anyway
FLAT = 0.5 / 255  # of a step from pixel to pixel; less is rounding
LEVELS = 255


class Seams(NamedTuple):
    """The worst border. ratio: of steps from pixel to pixel there to those beside it, about 1 where none shows.

    step: by how many levels of 255 brightness jumps there, averaged along a window's side.
    """

    ratio: float
    step: float

    def describe(self) -> str:
        """One line for people."""
        return f"worst window border: {self.ratio:.2f} times the steps beside it, a jump of {self.step:.1f}/255"


def borders_of(plan: WindowPlan) -> tuple[list[int], list[int]]:
    """Rows and columns, in pixels, at which some window begins or ends inside the canvas."""
    height, width = plan.size
    rows = {y for top in plan.tops for y in (top, top + height)} - {0, plan.height}
    cols = {x for left in plan.lefts for x in (left, left + width)} - {0, plan.width}
    return sorted(rows), sorted(cols)


def measure_seams(result: Tensor, source: Tensor, rows: Sequence[int], cols: Sequence[int]) -> Seams:
    """The worst seam of a picture [H, W] at these lines, beside its source [h, w]; both grey in [0, 1].

    Each line lies between a pixel and the one before it. It is taken in the pieces that the lines of the other
    direction cut it into. What the source, enlarged bicubic, has at the same place is no seam: the horizon, say.
    Without lines inside the picture, a ratio of 1 and a step of 0.
    """
    large = resize(source, result.shape)
    found = [
        *_along(result, large, rows, _pieces(cols, result.shape[1])),
        *_along(result.T, large.T, cols, _pieces(rows, result.shape[0])),
    ]
    if not found:
        return Seams(1.0, 0.0)
    return Seams(*(max(values) for values in zip(*found, strict=True)))


def _pieces(lines: Sequence[int], length: int) -> list[slice]:
    marks = [0, *sorted(line for line in lines if 0 < line < length), length]
    return [slice(start, end) for start, end in itertools.pairwise(marks)]


def _along(result: Tensor, large: Tensor, rows: Sequence[int], pieces: list[slice]) -> list[Seams]:
    found, height = [], result.shape[0]
    for row in rows:
        near = [row + n for n in NEAR if 0 < row + n < height]
        if not (0 < row < height and near):
            continue
        lines = torch.tensor([row, *near], device=result.device)
        ours, theirs = ((image[lines] - image[lines - 1]).abs().float() for image in (result, large))
        for piece in pieces:
            own, other = (
                float(size[0] / size[1:].mean()) for size in (x[:, piece].mean(1) + FLAT for x in (ours, theirs))
            )
            usual = [_jump(result, large, row + n, piece) for n in FAR]
            jump = _jump(result, large, row, piece) - sum(usual) / len(usual)
            found.append(Seams(own / max(other, 1.0), max(jump, 0.0)))
    return found


def _jump(result: Tensor, large: Tensor, row: int, piece: slice) -> float:
    """By how many levels the two sides of a line differ more in the result than in the source; 0 beside the picture."""
    below = slice(row + SIDES.start, row + SIDES.stop)
    above = slice(row - SIDES.stop, row - SIDES.start)
    if above.start < 0 or below.stop > result.shape[0]:
        return 0.0
    low, high = (float((result[side, piece] - large[side, piece]).float().mean()) for side in (below, above))
    return abs(low - high) * LEVELS
