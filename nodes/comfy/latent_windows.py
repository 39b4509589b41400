"""How the latent of a canvas, and a map of its degrade_sigma, travel through ComfyUI's conditionings: never copied."""

from __future__ import annotations

from typing import NamedTuple

import comfy.conds
from torch import Tensor

from ...pid_core.windows.plan import Window


class Latents(NamedTuple):
    """Latents or maps of one canvas, [1 or B, C, h, w] each, one per conditioning that runs in this call.

    The call's batch holds, for every latent, each window's images in turn; windows None: the whole canvas's. size: the
    canvas (H, W) in pixels that they are windows of.
    """

    latents: tuple[Tensor, ...]
    windows: tuple[Window, ...] | None = None
    size: tuple[int, int] | None = None


class CONDLatent(comfy.conds.CONDRegular):
    """A latent or map that ComfyUI must neither copy, repeat nor cut: the network's trunk runs once on all of it.

    Which latent it is the model sees from the tensor itself: to compare values it would have to wait for a GPU.
    """

    def __init__(self, cond: Tensor, windows: tuple[Window, ...] | None = None, size: tuple[int, int] | None = None):
        super().__init__(cond)
        self.windows, self.canvas = windows, size

    def _copy_with(self, cond: Tensor) -> CONDLatent:
        return CONDLatent(cond, self.windows, self.canvas)

    def process_cond(self, batch_size: int, **kwargs) -> CONDLatent:
        return self

    def can_concat(self, other) -> bool:
        same = isinstance(other, CONDLatent) and (other.windows, other.canvas) == (self.windows, self.canvas)
        return same and super().can_concat(other)

    def concat(self, others: list[CONDLatent]) -> Latents:
        return Latents((self.cond, *(other.cond for other in others)), self.windows, self.canvas)
