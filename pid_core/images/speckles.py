"""Speckles: single pixels much brighter than all around them, which the source knows nothing of.

The released weights draw them on skin. A star or a glint looks the same, but the source shows it too, as the faint
spot that the reduction makes of it. So each bright pixel is looked for in the source with that spot as a matched
filter (D. O. North, 1943): what part of its light is there, and does it stand out of what is around.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 0.2  # height over its surroundings, of a range of 1, from which a pixel is looked at
ALONE = 0.35  # of its height: so much lower is all that is up to two pixels away
MARGIN = 0.1  # and by no less than that
CLEAR = 8.0  # heights over the deviation of what is around, each from the median of its own 3 x 3
EXPLAINED = 0.3  # part of its light in the source from which it is no speckle
STANDS_OUT = 2.0  # deviations of the source's surroundings
REACH = 4  # pixels around a bright one that are its surroundings, in the result and in the source
ROWS, CHUNK = 512, 2**15  # looked at at once: rows of a picture, bright pixels


class Speckles(NamedTuple):
    """Where speckles are: row and column of each [n, 2]; and which of the 3 x 3 pixels around belong to it [n, 3, 3].

    explained: how many more bright pixels there are that the source shows too.
    """

    places: Tensor
    shapes: Tensor
    explained: int = 0

    @property
    def number(self) -> int:
        """How many there are."""
        return self.places.shape[0]


def find_speckles(result: Tensor, source: Tensor | None = None) -> Speckles:
    """Speckles of a picture [H, W], grey in [0, 1], beside its source [h, w], of any size no larger.

    Without a source all isolated bright pixels count. Those that stand out by less than LEAST, and those
    among grain or gravel, are none. A spot of two pixels or more is none either.
    """
    places = _bright(result)
    parts = [_judge(result, source, some) for some in places.split(CHUNK)]
    found, shapes, explained = (torch.cat(kind) for kind in zip(*parts, strict=True))
    return Speckles(found, shapes, int(explained.sum()))


def remove_speckles(result: Tensor, speckles: Speckles) -> Tensor:
    """A copy of a picture [H, W, C] in which each speckle's pixels are the mean of those around; no other changes.

    Channels after the third (alpha) stay.
    """
    cleaned, (height, width) = result.clone(), result.shape[:2]
    colours = cleaned[..., :3]
    for places, shapes in zip(speckles.places.split(CHUNK), speckles.shapes.split(CHUNK), strict=True):
        around = torch.arange(-2, 3)
        rows = (places[:, :1] + around).clamp(0, height - 1)
        cols = (places[:, 1:] + around).clamp(0, width - 1)
        patches = result[..., :3][rows[:, :, None], cols[:, None]].float()
        weights = 1.0 - F.pad(shapes.float(), (1, 1, 1, 1))
        for down in range(3):
            for across in range(3):
                near = weights[:, down : down + 3, across : across + 3, None].to(result.device)
                near = near / near.sum((1, 2), keepdim=True).clamp_min(1)
                own = shapes[:, down, across]
                mean = (patches[:, down : down + 3, across : across + 3] * near).sum((1, 2)).to(result.dtype)
                colours[rows[own, down + 1], cols[own, across + 1]] = mean[own.to(mean.device)]
    return cleaned


def _bright(grey: Tensor) -> Tensor:
    """[n, 2]: pixels that are higher by MARGIN than all others of their 5 x 5."""
    height, width = grey.shape
    found = []
    for top in range(0, height, ROWS):
        rows = torch.arange(top - 2, min(top + ROWS, height) + 2, device=grey.device).clamp(0, height - 1)
        padded = F.pad(grey[rows].float()[None, None], (2, 2, 0, 0), mode="replicate")[0, 0]
        own = padded[2:-2, 2:-2]
        others = torch.full_like(own, -torch.inf)
        for down, across in itertools.product(range(5), repeat=2):
            if (down, across) != (2, 2):
                torch.maximum(others, padded[down : down + own.shape[0], across : across + width], out=others)
        found.append((own - others > MARGIN).nonzero().cpu() + torch.tensor([top, 0]))
    return torch.cat(found)


def _judge(result: Tensor, source: Tensor | None, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of bright pixels [n, 2] those that are speckles, with their shapes; and [n], whether the source explains them."""
    patches = _patches(result, places, REACH + 1)
    # over the median of each one's own 3 x 3, to which straight edges and slopes are nothing
    above = patches[:, 1:-1, 1:-1] - patches.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3).median(3).values
    peak = above[:, REACH, REACH]
    deviation = 1.4826 * _around(above, 2, REACH).abs().median(1).values
    alone = patches[:, REACH + 1, REACH + 1] - _around(patches, 1, 2).max(1).values >= ALONE * peak
    kept = alone & (peak >= LEAST) & (peak >= CLEAR * deviation)
    own = above[:, REACH - 1 : REACH + 2, REACH - 1 : REACH + 2]
    explained = torch.zeros_like(kept)
    if source is not None:
        explained = kept & _explained(source, result.shape, places, own.clamp_min(0).sum((1, 2)))
        kept &= ~explained
    return places[kept], (own > ALONE * peak[:, None, None])[kept], explained


def _explained(source: Tensor, size: torch.Size, places: Tensor, light: Tensor) -> Tensor:
    """Which bright pixels [n, 2] of a picture of this size the source shows as well. light [n]: all of each."""
    shares = torch.tensor([small / large for small, large in zip(source.shape, size, strict=True)])
    exact = (places + 0.5) * shares - 0.5
    nearest = exact.round().long()
    patches = _patches(source, nearest)
    inner = slice(REACH - 2, REACH + 3)
    offsets = torch.arange(-2, 3) - (exact - nearest)[..., None]
    spot = light[:, None, None] * shares.prod() * _cubic(offsets[:, 0])[:, :, None] * _cubic(offsets[:, 1])[:, None]
    spot = spot - spot.mean((1, 2), keepdim=True)
    power = spot.square().sum((1, 2)).clamp_min(1e-12)
    part = (patches[:, inner, inner] * spot).sum((1, 2)) / power
    around = _around(patches, 3, REACH)
    deviation = 1.4826 * (around - around.median(1, keepdim=True).values).abs().median(1).values
    return (part >= EXPLAINED) & (part * power.sqrt() >= STANDS_OUT * deviation)


def _patches(grey: Tensor, places: Tensor, reach: int = REACH) -> Tensor:
    """What is around each of the places [n, 2], on the CPU: [n, 2 reach + 1, 2 reach + 1]; edges go on as they are."""
    offsets = torch.arange(-reach, reach + 1)
    rows = (places[:, :1] + offsets).clamp(0, grey.shape[0] - 1).to(grey.device)
    cols = (places[:, 1:] + offsets).clamp(0, grey.shape[1] - 1).to(grey.device)
    return grey[rows[:, :, None], cols[:, None]].float().cpu()


def _around(patches: Tensor, nearest: int, furthest: int) -> Tensor:
    """What lies so many pixels away from the middle of each patch: [n, pixels]."""
    middle = patches.shape[1] // 2
    reach = torch.arange(-middle, middle + 1).abs()
    away = torch.maximum(reach[:, None], reach)
    return patches[:, (away >= nearest) & (away <= furthest)]


def _cubic(x: Tensor) -> Tensor:
    """Keys's kernel, a = -0.5, by which pictures are reduced (R. Keys, IEEE TASSP 29, 1981)."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
