"""Context windows: how a canvas is cut into rectangles, how their results are fused, and which cut is cheapest.

Pure planning: nothing here runs the network, and `cost` says what a window costs. Lengths are output pixels unless
named cells; a cell is `align` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import prints_bare
from ..model.config import PiDConfig
from ..model.cost import forward_flops, forward_work, peak_bytes, priced
from ..model.devices import to_device, usual_dtype_bytes, widest_float
from ..model.fused import kind_of
from ..model.pixel_cache import PIXEL_CACHES, PixelCache

FUSE_METHODS = ("pyramid", "linear", "cosine", "flat")
OVERLAP = 512  # least overlap of windows in pixels where nobody asks for another
# Bytes that a call on a window of height x width pixels needs, by what is cached.
Peak = Callable[[int, int, PixelCache], float]
SMALLEST = 3  # where memory is short, a window may be so many times smaller than the smallest trained side


@prints_bare
class NoPlanError(ValueError):
    """No window is small enough for the memory. size: (height, width) of the one that needs least, `needed` bytes."""

    def __init__(self, bounds: tuple[int, int], budget: float, needed: float, size: tuple[int, int]):
        super().__init__(
            f"no window of {bounds[0]} to {bounds[1]} px a side fits {budget / 1e9:.2f} GB: the smallest, "
            f"{size[1]} x {size[0]}, needs {needed / 1e9:.2f} GB: free memory, or give smaller bounds"
        )
        self.needed, self.size = needed, size


@prints_bare
class TooLittleMemoryError(ValueError):
    """No windows fit the memory, said for people."""


class Window(NamedTuple):
    """One rectangle of the canvas, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below it."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column beside it."""
        return self.left + self.width

    def slices(self, cell: int = 1) -> tuple[slice, slice]:
        """(rows, columns) of this window in a grid whose cells are `cell` pixels, for indexing [..., H, W]."""
        return slice(self.top // cell, self.bottom // cell), slice(self.left // cell, self.right // cell)


@dataclass(frozen=True)
class WindowPlan:
    """Windows of one size that cover a canvas of height x width pixels, row by row.

    `overlap` is the least overlap between neighbours that was planned for, `align` what every edge is a multiple of,
    `notes` what was rounded to get there, `pixel_cache` what the memory it was planned for allows the network to
    cache between its pixel blocks (None: nobody planned for a memory).
    """

    height: int
    width: int
    windows: tuple[Window, ...]
    overlap: int
    align: int
    notes: tuple[str, ...] = field(default=(), compare=False)
    pixel_cache: PixelCache | None = field(default=None, compare=False)

    @property
    def count(self) -> int:
        """How many windows there are."""
        return len(self.windows)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every window."""
        return self.windows[0].height, self.windows[0].width

    @property
    def tops(self) -> tuple[int, ...]:
        """Where each row of windows begins, in pixels."""
        return tuple(dict.fromkeys(w.top for w in self.windows))

    @property
    def lefts(self) -> tuple[int, ...]:
        """Where each column of windows begins, in pixels."""
        return tuple(dict.fromkeys(w.left for w in self.windows))

    @property
    def rows(self) -> int:
        """Windows down the canvas."""
        return len(self.tops)

    @property
    def cols(self) -> int:
        """Windows across the canvas."""
        return len(self.lefts)

    def describe(self) -> str:
        """One line for people; sizes as width x height."""
        canvas = f"{self.width} x {self.height} px"
        if self.count == 1:
            text = f"one window, the whole {canvas}"
        else:
            text = (
                f"{self.count} windows of {self.size[1]} x {self.size[0]} px ({self.cols} across, {self.rows} down) "
                f"on {canvas}, overlap at least {self.overlap} px"
            )
        return "; ".join([text, *self.notes])


def plan_windows(height: int, width: int, size: int | tuple[int, int], overlap: int, *, align: int) -> WindowPlan:
    """Cover a canvas of height x width pixels with equal windows, as few and as small as will do.

    size: largest side, or (height, width); rounded down to a multiple of `align`. overlap: least overlap of
    neighbours; rounded up. Windows are spread evenly: the distance between neighbours differs by at most one `align`.
    The plan mirrors itself on both axes wherever the count and the size allow; a window grows by one `align`
    for it if `size` has the room. A canvas that fits is one window.
    Raises ValueError in one line for a canvas that is no multiple of `align`, a size below it, an overlap that is
    negative or not smaller than the size, and anything that is not positive.
    """
    _check_canvas(height, width, align)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < align:
        raise ValueError(f"window size {size} is too small: set it to at least {align} px, one cell of the latent")
    limits = tuple(side // align for side in sides)
    overlap_cells = _check_overlap(overlap, align)
    if overlap_cells >= min(limits):
        raise ValueError(
            f"overlap {overlap} must be smaller than the window size {size} (used, in multiples of {align} px: "
            f"overlap {overlap_cells * align}, size {min(limits) * align}): lower the overlap or raise the size"
        )
    notes = [
        f"size {side} rounded down to {cells * align} px"
        for side, cells in dict.fromkeys(zip(sides, limits, strict=True))
        if side % align
    ]
    if overlap % align:
        notes.append(f"overlap {overlap} rounded up to {overlap_cells * align} px")
    down = _Axis.within(height // align, limits[0], overlap_cells)
    across = _Axis.within(width // align, limits[1], overlap_cells)
    return _make_plan(height, width, down, across, overlap_cells, align, notes)


def fuse_weights(
    plan: WindowPlan,
    method: str = "pyramid",
    indices: Sequence[int] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """What each window counts for at each of its pixels: [n, window height, window width] float32, 0 to 1.

    Added up on the canvas the weights of all windows give 1 at every pixel. `indices` picks windows, for canvases
    where all at once would be large. See `fuse_profiles` for the methods.
    """
    down, across = profiles_on(torch.device(device or "cpu"), plan, method)
    picked = torch.tensor(range(plan.count) if indices is None else list(indices)).to(down.device)
    return (down[picked // plan.cols][:, :, None] * across[picked % plan.cols][:, None, :]).float()


def profiles_on(device: torch.device, plan: WindowPlan, method: str) -> tuple[Tensor, Tensor]:
    """`fuse_profiles` on a device; one without float64 multiplies them in float32, one rounding away."""
    down, across = fuse_profiles(plan, method)
    return to_device(down, device, widest_float(device)), to_device(across, device, widest_float(device))


def fuse_profiles(plan: WindowPlan, method: str = "pyramid") -> tuple[Tensor, Tensor]:
    """The weights as two factors, float64: down [rows, window height] and across [cols, window width].

    The window in row r and column c weighs down[r][:, None] * across[c][None, :]: kilobytes where the product takes
    gigabytes. Each factor is normalised along its axis, so the product is too, and between two neighbours the blend is
    the same along their whole border. Methods, along each axis before normalising:
    pyramid: distance to the window's nearer edge. linear: 1, with straight ramps inside the overlaps with the direct
    neighbours. cosine: the same with smooth ramps. flat: 1, so that overlaps are plain means. pyramid and linear differ
    only where windows overlap by more than half. Where one window is alone its weight is exactly 1.
    Raises ValueError for an unknown method.
    """
    if method not in FUSE_METHODS:
        raise ValueError(f"fuse method {method!r} is unknown; known: {', '.join(FUSE_METHODS)}")
    height, width = plan.size
    return _profile(plan.tops, height, plan.height, method), _profile(plan.lefts, width, plan.width, method)


def choose_plan(
    height: int,
    width: int,
    config: PiDConfig,
    *,
    memory_budget: float,
    overlap: int,
    device: torch.device | str,
    align: int | None = None,
    bounds: tuple[int, int] | None = None,
    batch: int = 1,
    dtype_bytes: int | None = None,
    peak: Peak | None = None,
) -> WindowPlan:
    """The plan with the least work per step whose predicted peak fits the budget and whose windows fit the bounds.

    memory_budget: bytes free for one network call on `batch` images of one window each, see `peak_bytes`.
    bounds: smallest and largest window side in pixels, by default the checkpoint's (`window_min` and `window_max` of
    its configuration); a canvas side below the smallest is taken whole. The whole frame is one of the candidates.
    device: decides what attention costs against linear layers (`cost.priced`). align: by default the latent cell,
    or a patch where the canvas is no multiple of the cell. dtype_bytes: of the compute dtype, by default 4 on the CPU
    and 2 elsewhere. peak(height, width, cache): bytes that a network call on one window needs, where `peak_bytes` is
    not it; like that, it may depend on the window's area only. What is cached between pixel blocks is chosen with the
    window. Raises NoPlanError, a ValueError, when nothing fits, and ValueError in one line for what `plan_windows`
    refuses.
    """
    device = torch.device(device)
    dtype_bytes = dtype_bytes or usual_dtype_bytes(device)
    align = align or _default_align(height, width, config)
    _check_canvas(height, width, align)
    low, high = bounds or (config.window_min, config.window_max)
    low_cells, high_cells, overlap_cells = -(-low // align), high // align, _check_overlap(overlap, align)
    if not 0 < low_cells <= high_cells:
        raise ValueError(f"window sides from {low} to {high} px hold no positive multiple of {align} px")
    if overlap_cells >= high_cells:
        raise ValueError(
            f"overlap {overlap} must be smaller than the largest window side, {high} px: lower the overlap"
        )
    if peak is None:
        kind = kind_of(device)

        def peak(height: int, width: int, cache: PixelCache) -> float:
            return peak_bytes(config, height, width, batch, dtype_bytes, kind, cache)

    cuts = _cuts(height // align, width // align, low_cells, high_cells, overlap_cells)

    def cost(cut: _Cut, cache: PixelCache = PIXEL_CACHES[0]) -> tuple[float, int]:
        work = forward_work(config, *cut.side(align), cache=cache)
        return cut.count * priced(work, device.type), cut.count

    found = _cheapest(cuts, cost, lambda cut, cache: peak(*cut.side(align), cache), memory_budget)
    if found.best is None:
        raise NoPlanError((low, high), memory_budget, found.least, found.smallest.side(align))
    notes = [f"overlap {overlap} rounded up to {overlap_cells * align} px"] if overlap % align else []
    cut, cache = found.best
    return replace(_make_plan(height, width, cut.down, cut.across, overlap_cells, align, notes), pixel_cache=cache)


def shrink_plan(plan: WindowPlan, least: int = 0) -> WindowPlan | None:
    """The next plan to try when one window of this one is too large for the memory: sides of three quarters.

    The overlap stays, but is at most half of the smaller side. None where windows are single cells, or would be smaller
    than `least` pixels.
    """
    smaller = max(plan.size) * 3 // 4 // plan.align * plan.align
    if not smaller or smaller < least:
        return None
    overlap = min(plan.overlap, smaller // 2 // plan.align * plan.align)
    return replace(
        plan_windows(plan.height, plan.width, smaller, overlap, align=plan.align), pixel_cache=plan.pixel_cache
    )


@dataclass(frozen=True)
class _Axis:
    """One side of a plan, in cells: `count` windows of `window` cells on `cells`."""

    cells: int
    window: int
    count: int

    @classmethod
    def within(cls, cells: int, limit: int, overlap: int) -> _Axis:
        """Fewest windows of at most `limit` cells, then the smallest window that still covers with that count."""
        if cells <= limit:
            return cls(cells, cells, 1)
        count = -(-(cells - overlap) // (limit - overlap))
        return cls(cells, overlap - (-(cells - overlap) // count), count)._mirrored(limit)

    def _mirrored(self, limit: int) -> _Axis:
        # An odd count has a middle window, which sits in the middle only if the rest is even.
        odd = self.count % 2 and (self.cells - self.window) % 2
        return replace(self, window=self.window + 1) if odd and self.window < limit else self

    @property
    def starts(self) -> list[int]:
        last, rest = self.count - 1, self.cells - self.window
        if not last:
            return [0]
        # Rounded in the first half and mirrored into the second, or ties would all fall to one side.
        half = [(2 * i * rest + last) // (2 * last) for i in range(last // 2 + 1)]
        return half + [rest - half[last - i] for i in range(last // 2 + 1, self.count)]


@dataclass(frozen=True)
class _Cut:
    """A canvas in `count` windows."""

    count: int
    down: _Axis
    across: _Axis

    def side(self, align: int) -> tuple[int, int]:
        """(height, width) of its windows in pixels."""
        return self.down.window * align, self.across.window * align


class _Search(NamedTuple):
    """The cheapest cut that fits, with what is cached with it; and the cut that needs least memory, `least` bytes."""

    best: tuple[_Cut, PixelCache] | None
    smallest: _Cut
    least: float


def _cuts(rows: int, cols: int, low: int, high: int, overlap: int) -> list[_Cut]:
    """Of every window's area, on which its work and memory depend alone, the cut with the fewest windows; in cells."""
    best: dict[int, _Cut] = {}
    across_all = _candidates(cols, low, high, overlap)
    for down in _candidates(rows, low, high, overlap):
        for across in across_all:
            area, count = down.window * across.window, down.count * across.count
            if area not in best or count < best[area].count:
                best[area] = _Cut(count, down, across)
    return list(best.values())


def _cheapest(
    cuts: list[_Cut],
    cost: Callable[..., tuple[float, int]],
    needed: Callable[[_Cut, PixelCache], float],
    budget: float,
) -> _Search:
    """cost(cut) where all is cached, which is the least, and cost(cut, cache); needed: bytes."""
    best, lowest_price = None, (math.inf, 0)
    smallest, least = cuts[0], math.inf
    for lowest, cut in sorted(((cost(cut), cut) for cut in cuts), key=itemgetter(0)):
        if lowest >= lowest_price:
            break
        for cache in PIXEL_CACHES:
            size = needed(cut, cache)
            if size < least:
                smallest, least = cut, size
            if size <= budget:
                price = lowest if cache is PIXEL_CACHES[0] else cost(cut, cache)
                if price < lowest_price:
                    best, lowest_price = (cut, cache), price
                break
    return _Search(best, smallest, least)


def _candidates(cells: int, low: int, high: int, overlap: int) -> list[_Axis]:
    """Every sensible cut of one side: from the fewest windows to the count at which they reach the lower bound."""
    low = min(max(low, overlap + 1), cells)
    found: dict[int, _Axis] = {}  # by window, so that more windows of the same size are left out
    count = 1 if cells <= high else -(-(cells - overlap) // (high - overlap))
    while True:
        smallest = cells if count == 1 else overlap - (-(cells - overlap) // count)
        axis = _Axis(cells, max(smallest, low), count)._mirrored(high)
        found.setdefault(axis.window, axis)
        if smallest <= low:
            return list(found.values())
        count += 1


def _make_plan(height: int, width: int, down: _Axis, across: _Axis, overlap: int, align: int, notes) -> WindowPlan:
    windows = tuple(
        Window(top * align, left * align, down.window * align, across.window * align)
        for top in down.starts
        for left in across.starts
    )
    return WindowPlan(height, width, windows, overlap * align, align, tuple(notes))


def _profile(starts: Sequence[int], size: int, canvas: int, method: str) -> Tensor:
    """Weights along one axis, [len(starts), size] float64, adding up to 1 on every pixel of the canvas."""
    # Pixel centres, so that no weight is 0 and a ramp meets its mirror image in the middle.
    centre = torch.arange(size, dtype=torch.float64) + 0.5
    raw = torch.ones(len(starts), size, dtype=torch.float64)
    for i, start in enumerate(starts):
        if method == "pyramid":
            raw[i] = torch.minimum(centre, size - centre)
        elif method in ("linear", "cosine"):
            before = starts[i - 1] + size - start if i else 0
            after = start + size - starts[i + 1] if i + 1 < len(starts) else 0
            for overlap, distance in ((before, centre), (after, size - centre)):
                if overlap > 0:
                    raw[i] = torch.minimum(raw[i], distance / overlap)
            if method == "cosine":
                raw[i] = 0.5 - 0.5 * torch.cos(math.pi * raw[i])
    total = torch.zeros(canvas, dtype=torch.float64)
    for i, start in enumerate(starts):
        total[start : start + size] += raw[i]
    return torch.stack([raw[i] / total[start : start + size] for i, start in enumerate(starts)])


def _default_align(height: int, width: int, config: PiDConfig) -> int:
    cell = math.lcm(config.patch_size, config.latent_cell)
    return config.patch_size if height % cell or width % cell else cell


def _check_canvas(height: int, width: int, align: int) -> None:
    if align <= 0:
        raise ValueError(f"align is {align}; it must be at least 1 px")
    if height <= 0 or width <= 0 or height % align or width % align:
        raise ValueError(f"the canvas is {width} x {height} px; both sides must be positive multiples of {align} px")


def _check_overlap(overlap: int, align: int) -> int:
    if overlap < 0:
        raise ValueError(f"overlap {overlap} is negative; 0 or more pixels are needed")
    return -(-overlap // align)


def plan_flops(plan: WindowPlan, config: PiDConfig, caption_tokens: int | None = None) -> int:
    """FLOP of one step of one image by this plan."""
    return plan.count * forward_flops(config, *plan.size, caption_tokens, plan.pixel_cache or PIXEL_CACHES[0])


def plan_price(plan: WindowPlan, config: PiDConfig, device_type: str) -> float:
    """`priced` work of one step of one image by this plan: what its time on a device is about proportional to."""
    return plan.count * priced(forward_work(config, *plan.size, cache=plan.pixel_cache or PIXEL_CACHES[0]), device_type)
