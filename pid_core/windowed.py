"""Predict a whole canvas window by window: each an image of its own to the network, fused on x0."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence

import torch
from einops import rearrange
from torch import Tensor

from .guard import NonFiniteError, finite_or_repeat
from .network import PiDNetwork
from .progress import OnPart
from .schedule import x0_from_velocity
from .windows import Window, WindowPlan, fuse_profiles, fuse_weights, shrink_plan

OnWindows = Callable[[int, int], None]  # windows done, windows in all
Predict = Callable[[list[Window]], Sequence[Tensor]]  # each result [windows * B, C, window height, window width]


def predict_x0(
    net: PiDNetwork,
    x: Tensor,
    t: Tensor,
    caption: Tensor,
    lq_features: Tensor,
    degrade_sigma: Tensor,
    on_part: OnPart | None = None,
) -> Tensor:
    """One network call, as the clean image: x [B, 3, H, W] at time t (scalar) -> x0 [B, 3, H, W] float32.

    on_part: told the fraction of the call that is done. A call that gives NaN or infinite values is repeated in
    float32; see guard.py for what is raised.
    """
    timestep = (1000 * t).expand(x.shape[0])
    out = finite_or_repeat(
        net,
        lambda: net(x, timestep, caption, lq_features=lq_features, degrade_sigma=degrade_sigma, on_part=on_part),
        f"the network at noise level {float(t):g}",
        image=x,
        caption=caption,
    )
    return out if net.config.prediction == "x0" else x0_from_velocity(x, t, out)


def predict_x0_by_windows(
    net: PiDNetwork,
    x: Tensor,
    t: Tensor,
    caption: Tensor,
    lq_features: Tensor,
    degrade_sigma: Tensor,
    on_part: OnPart | None = None,
    *,
    run: WindowRun,
) -> Tensor:
    """`predict_x0` for a canvas cut into windows, with the same arguments.

    lq_features are those of the whole canvas; every window takes its slice, so it knows what lies beyond its border.
    """

    def predict(windows: list[Window]) -> tuple[Tensor]:
        features = crop_features(lq_features, windows, x.shape[-2:], net.config.patch_size)
        count = len(windows)
        text, sigma = caption.repeat(count, 1, 1), degrade_sigma.repeat(count)
        return (predict_x0(net, crop(x, windows), t, text, features, sigma, on_part),)

    return run.step(predict)[0]


class WindowRun:
    """The windows of one canvas through all steps: how many run at once, and what to do when memory is short.

    Out of memory halves the batch, then takes a smaller plan (`shrink_plan`); both stay for the steps that follow, and
    `say` is told in one line. What was finished in that step counts: the smaller windows only fill the rest.
    `plan` and `window_batch` are the present ones. Raises ValueError for an unknown fuse method.
    """

    def __init__(
        self,
        plan: WindowPlan,
        *,
        fuse: str = "pyramid",
        window_batch: int = 1,
        say: Callable[[str], None] | None = None,
        on_windows: OnWindows | None = None,
    ):
        fuse_profiles(plan, fuse)
        self.plan, self.window_batch = plan, max(1, window_batch)
        self._fuse, self._on_windows = fuse, on_windows
        self._say = say or (lambda line: warnings.warn(line, stacklevel=4))

    def step(self, predict: Predict, alike: Callable[[Window], Hashable] = lambda window: None) -> list[Tensor]:
        """Run `predict` on every window of the plan, in batches, and fuse each of its results on the canvas.

        predict gets windows and gives one or more results [windows * B, C, h, w], the first window's images first. Only
        windows for which `alike` gives the same go into one batch. Returns one [B, C, H, W] float32 per result; with a
        plan of one window, what predict gave. Raises what predict raises, but an out-of-memory error only when
        windows cannot be made smaller.
        """
        fused: list[Tensor] = []
        rest: Tensor | None = None  # [H, W], how much of each pixel the plans before have left; None: all
        todo, done = self._in_order(alike), []
        while todo:
            key = alike(self.plan.windows[todo[0]])
            batch = [i for i in todo[: self.window_batch] if alike(self.plan.windows[i]) == key]
            try:
                results = predict([self.plan.windows[i] for i in batch])
            except NonFiniteError as error:
                names = ", ".join(str(i + 1) for i in batch)
                raise error.within(f"window {names} of {self.plan.count}") from None
            except RuntimeError as error:
                if not is_out_of_memory(error) or not self._ask_for_less(len(batch)):
                    raise
                results = None
            # outside the except block, where the failed call's tensors are free
            if results is None and len(batch) == 1:
                rest = self._rest(done, rest)
                self.plan = shrink_plan(self.plan)
                todo, done = self._in_order(alike), []
                if rest is not None:
                    done = [i for i in todo if not _any_left(rest, self.plan.windows[i])]
                    todo = [i for i in todo if i not in done]
            if results is None:
                continue
            if self.plan.count == 1:
                return list(results)
            fused = fused or [self._canvas(result, len(batch)) for result in results]
            self._add(fused, results, batch, rest)
            del results
            todo, done = todo[len(batch) :], done + batch
            if self._on_windows is not None:
                self._on_windows(len(done), self.plan.count)
        return fused

    def _in_order(self, alike: Callable[[Window], Hashable]) -> list[int]:
        keys = [alike(window) for window in self.plan.windows]
        return sorted(range(self.plan.count), key=lambda i: keys.index(keys[i]))

    def _ask_for_less(self, tried: int) -> bool:
        if tried > 1:
            self.window_batch = tried // 2
            self._say(f"out of memory: {self.window_batch} window(s) at a time from here on")
            return True
        smaller = shrink_plan(self.plan)
        if smaller is None:
            return False
        self._say(f"out of memory: smaller windows from here on, {smaller.describe()}")
        return True

    def _canvas(self, result: Tensor, windows: int) -> Tensor:
        shape = (result.shape[0] // windows, result.shape[1], self.plan.height, self.plan.width)
        return torch.zeros(shape, dtype=torch.float32, device=result.device)

    def _add(self, fused: list[Tensor], results: Sequence[Tensor], batch: list[int], rest: Tensor | None) -> None:
        weights = fuse_weights(self.plan, self._fuse, batch, device=fused[0].device)
        for place, index in enumerate(batch):
            rows, cols = self.plan.windows[index].slices()
            weight = weights[place] if rest is None else weights[place] * rest[rows, cols].to(weights.device)
            for canvas, result in zip(fused, results, strict=True):
                images = canvas.shape[0]
                canvas[..., rows, cols].addcmul_(result[place * images : (place + 1) * images], weight)

    def _rest(self, done: list[int], rest: Tensor | None) -> Tensor | None:
        if not done:
            return rest
        left = torch.ones(self.plan.height, self.plan.width)
        for index in done:
            rows, cols = self.plan.windows[index].slices()
            left[rows, cols] -= fuse_weights(self.plan, self._fuse, [index])[0]
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


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a tensor did not fit: not every device and driver raises OutOfMemoryError for it."""
    said = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in said)


def _any_left(rest: Tensor, window: Window) -> bool:
    rows, cols = window.slices()
    return bool(rest[rows, cols].max() > 1e-6)  # sums of weights miss 1 by less
