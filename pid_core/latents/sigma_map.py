"""SigmaMap: a degrade_sigma that differs over the picture, by masks, whatever latent it will be for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .feather import feathered

POINT = 8  # pixels of the output between two points that a mask is feathered at
FINEST = 2  # the same where the feather is less than four of them
SOFT = 4  # latent cells over which a value changes without a strong edge (benchmarks/RESULTS.md, Sigma map)


class SigmaMask(NamedTuple):
    """mask [1 or B, H, W] in 0 to 1, of any size: where it is 1, `sigma` holds.

    feather: pixels of the output, outside the mask, over which it falls off; None: `SOFT` latent cells.
    """

    mask: Tensor
    sigma: float
    feather: float | None = None


@dataclass(frozen=True, eq=False)
class SigmaMap:
    """base: degrade_sigma outside all masks, one number or one per picture; each mask lies over those before it.

    sets_base: whether the value that is tried out and chosen for it is that of base, and not the last mask's.
    """

    base: tuple[float, ...]
    masks: tuple[SigmaMask, ...]
    sets_base: bool = False

    def for_pictures(self, count: int) -> SigmaMap:
        """The same with as many of each mask as there are pictures: those there are, again and again.

        Raises ValueError where base has another number of values.
        """
        if len(self.base) not in (1, count):
            raise ValueError(
                f"the sigma map's base has {len(self.base)} values for {count} pictures: give one, or one per picture"
            )
        masks = (one._replace(mask=one.mask[[i % len(one.mask) for i in range(count)]]) for one in self.masks)
        return replace(self, base=self.base * (count // len(self.base)), masks=tuple(masks))

    def of_picture(self, index: int) -> SigmaMap:
        """What of a map `for_pictures` belongs to one of them."""
        masks = (one._replace(mask=one.mask[index : index + 1]) for one in self.masks)
        return replace(self, base=self.base[index : index + 1], masks=tuple(masks))

    def with_value(self, sigma: float) -> SigmaMap:
        """The same with another degrade_sigma where it is to be chosen: in base, or inside the last mask."""
        if self.sets_base or not self.masks:
            return replace(self, base=(sigma,) * len(self.base))
        return replace(self, masks=(*self.masks[:-1], self.masks[-1]._replace(sigma=sigma)))

    def on_cells(self, rows: int, cols: int, cell: float) -> Tensor:
        """The map [pictures, 1, rows, cols] float32 for a latent whose cells cover `cell` pixels of the output.

        As many masks as values in base are needed, or one of either.
        """
        values = torch.tensor(self.base, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, rows, cols)
        for one in self.masks:
            share = _share_of_cells(one, rows, cols, cell).to(values.device)
            values = values * (1 - share) + one.sigma * share  # exact at both ends
        return values.clamp(0, 1)


def _share_of_cells(mask: SigmaMask, rows: int, cols: int, cell: float) -> Tensor:
    """How much of each cell a mask covers with its feather, [B, 1, rows, cols] in 0 to 1."""
    feather = SOFT * cell if mask.feather is None else mask.feather
    points = max(1, round(cell / POINT))  # along a cell
    if feather > 0:  # a short one would be none on points so coarse
        points = max(points, min(math.ceil(4 * cell / feather), round(cell / FINEST)))
    size = rows * points, cols * points
    shares = F.interpolate(mask.mask[:, None].float(), size=size, mode="area")
    shares = feathered(shares, 4 * round(feather * points / cell / 4))
    return F.avg_pool2d(shares, points).clamp(0, 1)
