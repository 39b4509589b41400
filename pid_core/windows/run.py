"""Predict a whole canvas window by window: each an image of its own to the network, fused on x0."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

from ..errors import NonFiniteError
from .plan import SMALLEST, Window, WindowPlan, fuse_profiles, profiles_on, shrink_plan

OnWindows = Callable[[int, int], None]  # windows done, windows in all
LONGEST = 200  # characters of what a device said
Predict = Callable[[list[Window]], Sequence[Tensor]]  # each result [windows * B, C, window height, window width]


@dataclass
class _Step:
    """How far a step is: indices of windows to do and done, and the canvases so far.

    rest: [H, W], how much of each pixel the plans before have left; None: all.
    """

    todo: list[int]
    done: list[int] = field(default_factory=list)
    fused: list[Tensor] = field(default_factory=list)
    rest: Tensor | None = None


class WindowRun:
    """The windows of one canvas through all steps: how many run at once, and what to do when memory is short.

    Out of memory halves the batch, then takes a smaller plan (`shrink_plan`); both stay for the steps that follow, and
    `say` is told in one line. What was finished in that step counts: the smaller windows only fill the rest. Windows
    get no smaller than `least` pixels, or a third of what they were where that is less. Where their results do not fit
    beside each other, they are fused in main memory; `free` is called before anything is tried again.
    wanted: windows for which it is False do not run, and what only they cover is left without meaning.
    `plan` and `window_batch` are the present ones, `shrunk` whether windows had to be smaller than planned.
    Raises ValueError for an unknown fuse method.
    """

    def __init__(
        self,
        plan: WindowPlan,
        *,
        fuse: str = "pyramid",
        window_batch: int = 1,
        say: Callable[[str], None] | None = None,
        on_windows: OnWindows | None = None,
        least: int = 0,
        free: Callable[[], None] | None = None,
        wanted: Callable[[Window], bool] | None = None,
    ):
        fuse_profiles(plan, fuse)
        self.plan, self.window_batch = plan, max(1, window_batch)
        self.shrunk = False
        self._least = min(least, max(plan.size) // SMALLEST)
        self._free = free or _empty_cache
        self._wanted = wanted or (lambda window: True)
        self._attempts: list[str] = []
        self._fuse, self._on_windows = fuse, on_windows
        self._profiles: tuple | None = None  # (plan, device), and its profiles there
        self._say = say or (lambda line: warnings.warn(line, stacklevel=4))

    def step(self, predict: Predict, alike: Callable[[Window], Hashable] = lambda window: None) -> list[Tensor]:
        """Run `predict` on every window of the plan, in batches, and fuse each of its results on the canvas.

        predict gets windows and gives one or more results [windows * B, C, h, w], the first window's images first. Only
        windows for which `alike` gives the same go into one batch. Returns one [B, C, H, W] float32 per result; with a
        plan of one window, what predict gave. Raises what predict raises, but an out-of-memory error only when
        windows cannot be made smaller.
        """
        step = _Step(self._in_order(alike))
        while step.todo:
            batch = self._next_batch(step.todo, alike)
            results, failure = self._predict(predict, batch)
            # outside the except block, where the failed call's tensors are free
            if results is None:
                self._free()
                if len(batch) > 1:
                    self._take_fewer(len(batch))
                else:
                    step = self._with_smaller_windows(step, alike, failure)
                continue
            if self.plan.count == 1:
                return list(results)
            step.fused = self._fuse_into(step.fused, results, batch, step.rest)
            device = results[0].device
            del results
            step.todo, step.done = step.todo[len(batch) :], step.done + batch
            if self._on_windows is not None:
                self._on_windows(len(step.done), len(step.done) + len(step.todo))
        return [canvas.to(device) for canvas in step.fused]

    def _next_batch(self, todo: list[int], alike: Callable[[Window], Hashable]) -> list[int]:
        key = alike(self.plan.windows[todo[0]])
        return [i for i in todo[: self.window_batch] if alike(self.plan.windows[i]) == key]

    def _predict(self, predict: Predict, batch: list[int]) -> tuple[Sequence[Tensor] | None, str]:
        """The windows' results; None where the memory was too small for them, and what the device said."""
        try:
            return predict([self.plan.windows[i] for i in batch]), ""
        except NonFiniteError as error:
            names = ", ".join(str(i + 1) for i in batch)
            raise error.within(f"window {names} of {self.plan.count}") from None
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None, str(error)

    def _with_smaller_windows(self, step: _Step, alike: Callable[[Window], Hashable], failure: str) -> _Step:
        """The step with a smaller plan, whose windows fill what the finished ones have left."""
        smaller = self._smaller_plan(failure)
        rest = self._rest(step.done, step.rest)
        self.plan, self.shrunk = smaller, True
        order = self._in_order(alike)
        done = [] if rest is None else [i for i in order if not _any_left(rest, self.plan.windows[i])]
        return _Step([i for i in order if i not in done], done, step.fused, rest)

    def _in_order(self, alike: Callable[[Window], Hashable]) -> list[int]:
        keys = [alike(window) for window in self.plan.windows]
        wanted = [i for i, window in enumerate(self.plan.windows) if self._wanted(window)]
        return sorted(wanted, key=lambda i: keys.index(keys[i]))

    def _take_fewer(self, windows: int) -> None:
        self._attempts.append(f"{windows} windows at a time")
        self.window_batch = windows // 2
        self._say(f"out of memory: {self.window_batch} window(s) at a time from here on")

    def _smaller_plan(self, failure: str) -> WindowPlan:
        self._attempts.append(f"windows of {self.plan.size[1]} x {self.plan.size[0]}")
        smaller = shrink_plan(self.plan, self._least)
        if smaller is None:
            reason = (failure.splitlines() or [""])[0][:LONGEST]
            attempts = ", ".join(dict.fromkeys(self._attempts))
            raise torch.OutOfMemoryError(
                f"out of memory: tried {attempts}, smaller ones would spoil the picture: "
                f"make the picture smaller, decode fewer at once, or close other programs ({reason})"
            )
        self._say(f"out of memory: smaller windows from here on, {smaller.describe()}")
        return smaller

    def _fuse_into(
        self, fused: list[Tensor], results: Sequence[Tensor], batch: list[int], rest: Tensor | None
    ) -> list[Tensor]:
        """The canvases with these windows added: where they were, or in main memory where there is no room."""
        parts = self._parts(batch, rest, len(results))
        for way in ("as it is", "freed", "in main memory"):
            try:
                if way == "in main memory":
                    fused, results = [canvas.cpu() for canvas in fused], [result.cpu() for result in results]
                fused = fused or [self._canvas(result, len(batch)) for result in results]
                while parts:
                    self._add(fused, results, *parts[-1])
                    parts.pop()
                return fused
            except RuntimeError as error:
                if not is_out_of_memory(error) or way == "in main memory":
                    raise
            self._free()
            if way == "freed":
                self._say("out of memory: the windows are put together in main memory")
        return fused

    def _parts(self, batch: list[int], rest: Tensor | None, results: int) -> list[tuple]:
        return [(place, i, rest, which) for place, i in enumerate(batch) for which in range(results)]

    def _canvas(self, result: Tensor, windows: int) -> Tensor:
        shape = (result.shape[0] // windows, result.shape[1], self.plan.height, self.plan.width)
        return torch.zeros(shape, dtype=torch.float32, device=result.device)

    def _add(
        self, fused: list[Tensor], results: Sequence[Tensor], place: int, index: int, rest: Tensor | None, which: int
    ) -> None:
        canvas, result = fused[which], results[which]
        weight = self._weight(index, canvas.device)
        rows, cols = self.plan.windows[index].slices()
        if rest is not None:
            weight = weight * rest[rows, cols].to(weight.device)
        images = canvas.shape[0]
        canvas[..., rows, cols].addcmul_(result[place * images : (place + 1) * images].to(canvas.device), weight)

    def _weight(self, index: int, device: torch.device) -> Tensor:
        """`fuse_weights` of one window, made of profiles that stay on the device."""
        key = self.plan, device
        if self._profiles is None or self._profiles[0] != key:
            self._profiles = key, profiles_on(device, self.plan, self._fuse)
        down, across = self._profiles[1]
        return (down[index // self.plan.cols, :, None] * across[index % self.plan.cols]).float()

    def _rest(self, done: list[int], rest: Tensor | None) -> Tensor | None:
        if not done:
            return rest
        left = torch.ones(self.plan.height, self.plan.width)
        for index in done:
            rows, cols = self.plan.windows[index].slices()
            left[rows, cols] -= self._weight(index, left.device)
        return left if rest is None else left * rest


def crop(image: Tensor, windows: Sequence[Window], cell: int = 1) -> Tensor:
    """[B, C, H, W] in cells of `cell` pixels -> its parts under the windows, [windows * B, C, h, w]."""
    slices = [window.slices(cell) for window in windows]
    return torch.cat([image[..., rows, cols] for rows, cols in slices])


def crop_features(lq_features: Tensor, windows: Sequence[Window], size: Sequence[int], patch_size: int) -> Tensor:
    """The windows' parts of trunk features [B, tokens, C] of a canvas of size (H, W) -> [windows * B, tokens, C]."""
    rows, cols = (side // patch_size for side in size)
    grid = rearrange(lq_features, "b (h w) c -> b c h w", h=rows, w=cols)
    return rearrange(crop(grid, windows, patch_size), "b c h w -> b (h w) c")


def crop_sigma(sigma: Tensor, windows: Sequence[Window], size: Sequence[int], patch_size: int) -> Tensor:
    """The windows' degrade_sigma: of [B] each the image's, of [B, tokens] the part on it; [windows * B, ...]."""
    if sigma.ndim == 1:
        return sigma.repeat(len(windows))
    return crop_features(sigma[..., None], windows, size, patch_size)[..., 0]


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a tensor did not fit: not every device and driver raises OutOfMemoryError for it."""
    phrases = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in phrases)


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _any_left(rest: Tensor, window: Window) -> bool:
    rows, cols = window.slices()
    return bool(rest[rows, cols].max() > 1e-6)  # sums of weights miss 1 by less
