"""What a run takes of a device's memory, and the windows that fit it: the one place that is asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import NamedTuple

import torch

from ..model.config import PiDConfig
from ..model.cost import peak_bytes, trunk_bytes
from ..model.devices import usual_dtype_bytes
from ..model.fused import kind_of
from ..model.pixel_cache import PIXEL_CACHES, PixelCache
from .plan import SMALLEST, NoPlanError, WindowPlan, choose_plan

# Bytes of a call on so many images of height x width pixels, by what is cached.
CallBytes = Callable[[int, int, int, PixelCache | None], float]
# Positive and negative may run together.
PREDICTIONS = 2
# On the CPU more windows at once gain no speed and only take memory.
CPU_BATCH_BYTES = 1e9
# A window of this many pixels fills a card: several at once move more bytes and take more memory.
FILLING_PIXELS = 1024**2


class Canvases(NamedTuple):
    """How many whole float32 canvases a loop holds on the device, as it counts them itself.

    in_call: beside a network call. of_call: as many more of the size the call has. in_trunk: beside the projector,
    which runs before the first call. between: while there is neither.
    """

    in_call: int = 0
    of_call: int = 0
    in_trunk: int = 0
    between: int = 0


class Overhead(NamedTuple):
    """Bytes of a run that are no network call's. in_trunk: at the projector's peak, before the first call. in_call:
    beside every call. between: while there is no call. of_call: canvases of the call's own size beside it.
    """

    in_trunk: float = 0
    in_call: float = 0
    between: float = 0
    of_call: int = 0

    @classmethod
    def of(
        cls, config: PiDConfig, images: int, height: int, width: int, dtype_bytes: int, canvases: Canvases
    ) -> Overhead:
        """Of a run on `images` canvases of height x width pixels by a loop that holds so many of them."""
        trunk, features = 0, 0
        if config.has_latent:
            trunk, features = trunk_bytes(config, height, width, images, dtype_bytes)
        canvas = 4 * config.in_channels * images * height * width
        return cls(
            trunk + canvases.in_trunk * canvas,
            features + canvases.in_call * canvas,
            features + canvases.between * canvas,
            canvases.of_call,
        )


NO_OVERHEAD = Overhead()


class Moments(NamedTuple):
    """The fullest moments of a run in bytes: a network call, and beside it what is there all the time; the projector
    before the first; and between them what the sampler does with whole canvases.
    """

    call: float
    beside: float
    trunk: float
    between: float

    @property
    def needed(self) -> float:
        """Bytes at the fullest moment."""
        return max(self.call + self.beside, self.trunk, self.between)

    def cause(self) -> str:
        """What needs it, in words."""
        if self.between >= self.needed:
            return "for the whole canvases that the sampler works on between two calls of the network"
        if self.trunk >= self.needed:
            return "for the latent's projector, before the first window"
        return f"{self.call / 1e9:.2g} GB for one window and {self.beside / 1e9:.2g} GB for the picture as a whole"


@dataclass(frozen=True)
class MemoryModel:
    """The memory of runs of one network on `device`, in bytes above the weights.

    budget: free for a run. images: canvases of the run. dtype_bytes: of the compute dtype, by default 4 on the CPU and
    2 elsewhere. kind: what runs a call on so many pixels together, as `peak_bytes` takes it; by default `fused.kind_of`
    of the device. foreign: bytes of a call, for a network that is not ours and keeps a memory model of its own.
    overhead: what the run takes beside its calls. one_at_a_time: windows never share a call.
    """

    config: PiDConfig
    device: torch.device
    _: KW_ONLY
    budget: float = math.inf
    images: int = 1
    dtype_bytes: int | None = None
    kind: Callable[[int], str] | None = None
    foreign: CallBytes | None = None
    overhead: Overhead = NO_OVERHEAD
    one_at_a_time: bool = False

    def moments(self, images: int, height: int, width: int, cache: PixelCache | None) -> Moments:
        """Of a run whose calls are on `images` images of height x width pixels. cache: of the pixel path."""
        over = self.overhead
        if self.foreign is not None:
            call = self.foreign(images, height, width, cache)
        else:
            kind = kind_of(self.device) if self.kind is None else self.kind(images * height * width)
            size = self.dtype_bytes or usual_dtype_bytes(self.device)
            call = peak_bytes(self.config, height, width, images, size, kind, cache)
        call += over.of_call * 4 * self.config.in_channels * images * height * width
        return Moments(call, over.in_call, over.in_trunk, over.between)

    def needed(self, images: int, height: int, width: int, cache: PixelCache | None) -> float:
        """Bytes at the fullest of the `moments`."""
        return self.moments(images, height, width, cache).needed

    def of_plan(self, plan: WindowPlan, batch: int = 1) -> float:
        """Bytes of a run by this plan with `batch` windows in a call."""
        return self.needed(batch * self.images, *plan.size, plan.pixel_cache)

    def fitting_cache(self, height: int, width: int) -> PixelCache:
        """The largest cache that the budget allows, for windows of height x width pixels."""
        return next(
            (cache for cache in PIXEL_CACHES if self.needed(self.images, height, width, cache) <= self.budget),
            PIXEL_CACHES[-1],
        )

    def plan(self, height: int, width: int, overlap: int) -> WindowPlan:
        """`choose_plan` within the sides the checkpoint was trained on; where none of them fits, smaller ones.

        They are at least a third of the smallest trained side, better than nothing. The overlap is lowered where
        the windows are too small for it, and the plan's notes say so. Raises NoPlanError.
        """
        low, high = self.config.window_min, self.config.window_max
        overlap, requested = overlap if 2 * overlap <= high else high // 4, overlap
        try:
            plan = self._choose(height, width, overlap, (low, high))
        except NoPlanError:
            smaller = min(overlap, low // (2 * SMALLEST))
            plan = self._choose(height, width, smaller, (low // SMALLEST, high))
        if plan.count > 1 and plan.overlap < requested:
            plan = replace(plan, notes=(*plan.notes, f"overlap {requested} lowered to {plan.overlap} px"))
        return plan

    def _choose(self, height: int, width: int, overlap: int, bounds: tuple[int, int]) -> WindowPlan:
        return choose_plan(
            height,
            width,
            self.config,
            memory_budget=self.budget,
            overlap=overlap,
            device=self.device,
            align=self.config.latent_cell,
            bounds=bounds,
            peak=lambda height, width, cache: self.needed(self.images, height, width, cache),
        )

    def batch(self, plan: WindowPlan) -> int:
        """How many windows of `images` images each to run at once; 1 where not even one is sure to fit."""
        if self.one_at_a_time:
            return 1

        def needed(windows: int) -> float:
            return self.of_plan(plan, PREDICTIONS * windows)

        budget = self.budget
        if self.device.type == "cpu":
            budget = min(budget, needed(1) + CPU_BATCH_BYTES)
        elif plan.size[0] * plan.size[1] * self.images >= FILLING_PIXELS:
            return 1
        count = 1
        while count < plan.count and needed(count + 1) <= budget:
            count += 1
        return count

    def shortage(self, error: NoPlanError) -> str:
        """What the smallest windows need and what needs it, after `plan` found none that fit."""
        cause = ""
        if self.foreign is None:
            moments = (self.moments(self.images, *error.size, cache) for cache in PIXEL_CACHES)
            cause = f" ({min(moments, key=lambda moment: moment.needed).cause()})"
        return (
            f"even windows of {error.size[1]} x {error.size[0]} need {error.needed / 1e9:.2g} GB{cause} and "
            f"{self.budget / 1e9:.2g} GB are free"
        )
