"""degrade_sigma painted on pictures: from text that a workflow keeps to masks.

A picture's paint is a grid of cells over it, row by row in runs: "64x48:120.5@40.2947" are 120 cells without paint, 5
at 0.40, the others without. Of several pictures: "id=grid;id=grid".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..latents.sigma_map import SigmaMask
from ..printable import quoted

LONGEST = 96  # cells along the longer side
MOST = 1024  # a grid's side
NONE = -1.0  # where nothing is painted
_PICTURE = re.compile(r"([0-9a-f]+)=(\d+)x(\d+):([\d.@]*)")


def parse_paint(text: str) -> dict[str, Tensor]:
    """{picture id: [h, w] of degrade_sigma, NONE where nothing is painted}. Raises ValueError in one line."""
    return dict(_parse_one(part) for part in text.split(";") if part.strip())


def _parse_one(text: str) -> tuple[str, Tensor]:
    found = _PICTURE.fullmatch(text.strip())
    if found is None:
        raise _wrong(text)
    width, height = int(found[2]), int(found[3])
    runs = [run.split("@") for run in found[4].split(".") if run]
    try:
        counts = torch.tensor([int(run[0]) for run in runs], dtype=torch.int64)
        values = torch.tensor([int(run[1]) / 100 if len(run) == 2 else NONE for run in runs])
    except (ValueError, OverflowError, RuntimeError):
        raise _wrong(text) from None
    fits = 0 < width <= MOST and 0 < height <= MOST and int(counts.clamp(max=MOST**2).sum()) == width * height
    if not fits or any(len(run) > 2 for run in runs) or bool((values > 1).any()):
        raise _wrong(text)
    return found[1], values.repeat_interleave(counts).view(height, width)


def _wrong(text: str) -> ValueError:
    return ValueError(f"painted is damaged, it holds {quoted(text)}: empty it, and paint again")


def paint_masks(grids: Sequence[Tensor | None]) -> tuple[SigmaMask, ...]:
    """A mask for every value on some of a batch's pictures, higher ones above. grids: one per picture, None: no paint.

    A grid of another size than the first is stretched to its size.
    """
    some = next((grid for grid in grids if grid is not None), None)
    if some is None:
        return ()
    size = tuple(some.shape)
    whole = torch.stack([torch.full(size, NONE) if grid is None else _resized(grid, size) for grid in grids])
    return tuple(SigmaMask((whole == value).float(), round(float(value), 2)) for value in whole.unique() if value >= 0)


def _resized(grid: Tensor, size: tuple[int, ...]) -> Tensor:
    return grid if tuple(grid.shape) == size else F.interpolate(grid[None, None], size, mode="nearest-exact")[0, 0]
