"""Regional captions: which rectangle of the canvas a context window belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .plan import Window

LEAST_SHARE = 0.5  # of a window's area, for a rectangle to claim it


class Region(NamedTuple):
    """A rectangle in pixels of the output."""

    left: int
    top: int
    width: int
    height: int


def covered_share(window: Window, region: Region) -> float:
    """The part of the window's area that lies in the region, 0 to 1."""
    height = min(window.bottom, region.top + region.height) - max(window.top, region.top)
    width = min(window.right, region.left + region.width) - max(window.left, region.left)
    return max(height, 0) * max(width, 0) / (window.height * window.width)


def region_of(window: Window, regions: Sequence[Region]) -> int | None:
    """Index of the region that covers most of the window, if that is at least half of it; the first of equals."""
    shares = [covered_share(window, region) for region in regions]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return None if best is None or shares[best] < LEAST_SHARE else best
