"""How the latent of a whole canvas travels through ComfyUI's conditionings when the network sees windows of it."""

from __future__ import annotations

from typing import NamedTuple

import comfy.conds
from torch import Tensor

from ..pid_core.windows import Window


class LatentWindows(NamedTuple):
    """Latents of one canvas, [1 or B, C, h, w] each, one per conditioning that runs in this call.

    size is the canvas (H, W) in pixels; the call's batch holds, for every latent, each window's images in turn.
    """

    latents: tuple[Tensor, ...]
    windows: tuple[Window, ...]
    size: tuple[int, int]


class CONDLatentWindows(comfy.conds.CONDRegular):
    """A latent that ComfyUI must neither repeat nor cut: the network's trunk runs once on all of it."""

    def __init__(self, cond: Tensor, windows: tuple[Window, ...], size: tuple[int, int]):
        super().__init__(cond)
        self.windows, self.canvas = windows, size

    def _copy_with(self, cond: Tensor) -> CONDLatentWindows:
        return CONDLatentWindows(cond, self.windows, self.canvas)

    def process_cond(self, batch_size: int, **kwargs) -> CONDLatentWindows:
        return self

    def can_concat(self, other) -> bool:
        same = isinstance(other, CONDLatentWindows) and (other.windows, other.canvas) == (self.windows, self.canvas)
        return same and super().can_concat(other)

    def concat(self, others: list[CONDLatentWindows]) -> LatentWindows:
        return LatentWindows((self.cond, *(other.cond for other in others)), self.windows, self.canvas)
