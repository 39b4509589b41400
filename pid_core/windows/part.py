"""The part of a canvas that is drawn where only some of its pixels are asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..model.config import PiDConfig
from .plan import Window

# Pixels: a part needs no longer sides, whatever sides the checkpoint was trained on. It is v1's smallest trained side;
# at v1.5's, 2048, a small mask on 4096 x 4096 would cost a sixth of the decode in windows.
LONG_ENOUGH = 1536


def part_around(inside: Tensor, config: PiDConfig, reach: int = 0) -> Window | None:
    """The rectangle to draw so that the pixels of `inside` [B or 1, 1, H, W], and all within `reach`, can be changed.

    Its edges are whole latent cells, so it may end up to a cell beyond the canvas. Beyond `reach` it holds as much as
    the latent's projector sees from there, and it is no shorter than `least_side`, unless the canvas is.
    None where nothing is inside.
    """
    marked = inside.flatten(0, 1).any(dim=0)
    if not bool(marked.any()):
        return None
    margin = reach + projector_reach(config)
    (top, bottom), (left, right) = (_span(marked.any(dim=1 - axis), margin, config) for axis in (0, 1))
    return Window(top, left, bottom - top, right - left)


def projector_reach(config: PiDConfig) -> int:
    """Pixels to each side that the latent's projector sees: a convolution at its start and two in every block."""
    return (1 + 2 * config.lq_res_blocks) * config.patch_size


def least_side(config: PiDConfig) -> int:
    """Pixels that a part is long at least, in whole latent cells."""
    return _up(min(config.window_min, LONG_ENOUGH), config.latent_cell)


def _span(marked: Tensor, margin: int, config: PiDConfig) -> tuple[int, int]:
    """Where the part begins and ends along one side [n], in pixels."""
    cell = config.latent_cell
    whole = _up(len(marked), cell)
    places = torch.nonzero(marked)
    begin = max(0, int(places[0]) - margin) // cell * cell
    end = min(whole, _up(int(places[-1]) + 1 + margin, cell))
    lacking = min(least_side(config), whole) - (end - begin)
    if lacking > 0:
        begin = min(max(0, begin - lacking // 2 // cell * cell), whole - (end - begin) - lacking)
        end = begin + min(least_side(config), whole)
    return begin, end


def _up(length: int, cell: int) -> int:
    return math.ceil(length / cell) * cell
