"""What a node shows while PiD samples for it: the bar within every step, how long the rest takes, and its lines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import comfy.model_management
import comfy.utils
import torch

from ...pid_core import PiDConfig
from ...pid_core.log import log
from ...pid_core.model.cost import forward_work, priced, trunk_work
from ...pid_core.model.pixel_cache import PIXEL_CACHES, PixelCache
from ...pid_core.progress import Meter, OnPart, duration, when_done
from ...pid_core.windows.memory import Canvases, MemoryModel
from ...pid_core.windows.plan import Window, WindowPlan
from .canvases import canvases
from .network import compiled_of
from .node_text import send_text
from .status import Status

KEY = "pidkit_progress"
BAR = 1000  # ComfyUI's bar counts whole numbers
CALLBACK = 1  # its place in outer_sample's arguments after the schedule
TEXT_INTERVAL = 1.0  # seconds between two texts on a node

clock = time.monotonic
_rates: dict[tuple, float] = {}  # work per second of the last run, by network, device and dtype
_watch: ContextVar[Watch | None] = ContextVar("pidkit_watch", default=None)
_run: ContextVar[Run | None] = ContextVar("pidkit_run", default=None)


def current_run() -> Run | None:
    """The sampling run that is under way in this thread."""
    return _run.get()


@contextmanager
def watching(node_id: str | None, latent: str, title: str, *notes: str) -> Iterator[Watch]:
    """Sampling runs inside belong to one node and count as one.

    latent: what is decoded, for the details. title: the first line where nothing is sampled, because all was kept from
    the run before. notes: lines that stay on the node.
    """
    watch = Watch(node_id, latent, title, notes)
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


@contextmanager
def waiting(line: str) -> Iterator[None]:
    """What runs inside takes time that tells nothing of the rest: the node shows `line`, not how long that takes."""
    run = _run.get()
    if run is None:
        log.info("%s", line)
        yield
        return
    with run.watch.waiting(line):
        yield


def note(line: str) -> None:
    """A line that stays on the node whose run is under way."""
    run = _run.get()
    if run is not None and line not in run.watch.notes:
        run.watch.notes = (*run.watch.notes, line)


def expect_runs(count: int) -> None:
    """So many sampling runs are to come, of the node that is being watched."""
    watch = _watch.get()
    if watch is not None:
        watch.runs = count


def watched(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    """Wrapper around a whole sampling run, inside the one that settles its schedule."""
    guider = executor.class_obj
    handler = guider.model_options.get("context_handler")
    base = guider.model_patcher.model
    config = getattr(handler, "config", None) or base.config
    outer = _watch.get()
    watch = outer or Watch(getattr(handler, "node_id", None))
    run = Run(watch, config, guider, noise.shape, sigmas.cpu().tolist(), sampler)
    if len(args) > CALLBACK:
        args = (*args[:CALLBACK], run.behind(args[CALLBACK]), *args[CALLBACK + 1 :])
    else:
        kwargs["callback"] = run.behind(kwargs.get("callback"))
    token = _run.set(run)
    try:
        out = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    except BaseException:
        watch.pause()
        raise
    finally:
        _run.reset(token)
    run.finish()
    if outer is None:
        send_text(watch.node_id, *watch.lines())
    return out


def show_frame(memory: MemoryModel, height: int, width: int, cache: PixelCache) -> None:
    """The run on a canvas of height x width goes in one frame: say so on the node that is being watched."""
    run = _run.get()
    if run is not None:
        plan = WindowPlan(height, width, (Window(0, 0, height, width),), 0, 1, pixel_cache=cache)
        run.use(plan)
        run.watch.show(Status(plan, (height, width), memory.of_plan(plan), memory.images, run.expected))


class Watch:
    """The sampling runs of one node."""

    def __init__(self, node_id: str | None, latent: str = "", title: str = "", notes: tuple[str, ...] = ()):
        self.node_id, self.latent, self.title, self.notes = node_id, latent, title, notes
        self.runs, self.finished = 1, 0
        self.status: Status | None = None
        self.meter: Meter | None = None
        self.fraction = 0.0
        self._waits: str | None = None
        self._bar = comfy.utils.ProgressBar(BAR)
        self._text, self._sent_at = "", -math.inf

    def show(self, status: Status) -> None:
        """Write a plan's lines on the node, and keep them there while it runs."""
        self.status = status
        self._send(force=True)

    def pause(self) -> None:
        """The run was stopped: no time is left to tell."""
        self.meter = None
        self._send(force=True)

    @contextmanager
    def waiting(self, line: str) -> Iterator[None]:
        """See `progress.waiting`."""
        self._waits = line
        self._send(force=True)
        try:
            with nullcontext() if self.meter is None else self.meter.left_out():
                yield
        finally:
            self._waits = None
            self._send(force=True)

    def lines(self) -> list[str]:
        """What the node shows when all is done, with the seconds it took."""
        return self._lines(None if self.meter is None else duration(self.meter.seconds))

    def report(self, meter: Meter) -> None:
        self._bar.update_absolute(int(BAR * self.fraction), BAR)
        if self.fraction < 1:
            self._send()

    def _lines(self, seconds: str | None) -> list[str]:
        if self.status is None:
            return [line for line in (self.title, *self.notes) if line]
        first, *rest = self.status.lines(seconds, *([self.latent] if self.latent else []))
        return [first, *self.notes, *rest]

    def _send(self, force: bool = False) -> None:
        if self.status is None or (not force and clock() - self._sent_at < TEXT_INTERVAL):
            return
        left = None if self.meter is None else self.meter.seconds_left
        rest = self._waits or (None if left is None else f"about {duration(left)} left")
        lines = self._lines(None if rest else self.status.expected)
        if rest:
            lines.insert(0, rest)
        text = "\n".join(lines)
        if text != self._text:
            self._text, self._sent_at = text, clock()
            send_text(self.node_id, *lines)


class Run:
    """One sampling run: its work, by the cost model, and how much of it is done."""

    def __init__(self, watch: Watch, config: PiDConfig, guider, shape: torch.Size, sigmas: list[float], sampler=None):
        patcher = guider.model_patcher
        self.watch, self._config = watch, config
        self._device: torch.device = patcher.load_device
        self._images, _, *self._size = shape
        self._steps, self._sigmas = max(1, len(sigmas) - 1), sigmas
        self._counts = True  # whether the steps' noise levels are the schedule's
        alone = math.isclose(getattr(guider, "cfg", 1.0), 1.0)
        alone = alone and not guider.model_options.get("disable_cfg1_optimization", False)
        self._calls = 1 if alone else max(1, len(guider.conds))  # positive and negative, or positive only
        self._sampler = sampler
        compiled = compiled_of(patcher.model.diffusion_model)
        how = None if compiled is None else compiled.how
        self._rate_key = (config, str(self._device), str(patcher.model.get_dtype_inference()), how)
        self._cache = PIXEL_CACHES[0]
        self._trunk = self._images * trunk_work(config, *self._size)
        self._trunk_done, self._index, self._inside = 0.0, 0, 0.0
        self._step = self._images * self._calls * self._work(*self._size)

    def use(self, plan: WindowPlan) -> None:
        """The run goes by this plan."""
        self._cache = plan.pixel_cache or self._cache
        self._step = self._images * self._calls * plan.count * self._work(*plan.size)

    def canvases(self, windowed: bool) -> Canvases:
        """What the run holds of whole canvases."""
        return canvases(self._sampler, self._calls, windowed)

    @property
    def expected(self) -> str | None:
        """How long all runs of the node will take, where the last run of this network told."""
        rate = _rates.get(self._rate_key)
        return duration(self.watch.runs * self._total / rate) if rate else None

    @property
    def level(self) -> float | None:
        """The noise level of the present step; None where this sampler calls the network at others."""
        return self._sigmas[self._index] if self._counts and self._sigmas else None

    def lose_count(self) -> None:
        self._counts = False

    def in_trunk(self) -> OnPart:
        """For the latent's projector."""

        def listen(fraction: float) -> None:
            self._trunk_done = max(self._trunk_done, fraction * self._trunk)
            self._report()

        return self._listener(listen)

    def behind(self, callback: Callable | None) -> Callable:
        """A sampler's callback that also tells which step is over: from the noise level a GPU would have to tell it."""

        def at_step(step: int, *args) -> None:
            if step + 1 < self._steps:
                self._index, self._inside = step + 1, 0.0
            if callback is not None:
                callback(step, *args)

        return at_step

    def in_call(self, shape: torch.Size) -> OnPart:
        """For a network call on images [B, 3, H, W]."""
        before, work = self._inside, shape[0] * self._work(*shape[-2:])
        self._trunk_done = self._trunk

        def listen(fraction: float) -> None:
            self._inside = before + fraction * work
            self._report()

        return self._listener(listen)

    def at_window(self, done: int, count: int) -> None:
        """So many windows of a step are finished."""
        self._trunk_done = self._trunk
        self._inside = self._step * done / count
        self._report()

    def finish(self) -> None:
        watch = self.watch
        if watch.meter is not None:
            self._trunk_done, self._index, self._inside = self._trunk, self._steps - 1, self._step
            self._report()
            watch.finished += 1
            if watch.meter.rate:
                _rates[self._rate_key] = watch.meter.rate

    @property
    def _total(self) -> float:
        return self._trunk + self._steps * self._step

    def _work(self, height: int, width: int) -> float:
        return priced(forward_work(self._config, height, width, cache=self._cache), self._device.type)

    def _listener(self, listen: OnPart) -> OnPart:
        self._report()

        def interruptible(fraction: float) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            listen(fraction)

        return when_done(interruptible, self._device)

    def _report(self) -> None:
        watch = self.watch
        total = watch.runs * self._total
        if watch.meter is None:
            watch.meter = Meter(total, watch.report, clock)
        watch.meter.total = total
        inside = min(self._inside, self._step)
        done = self._trunk_done + self._index * self._step + inside
        # ComfyUI's samplers move the bar by equal steps, so the projector's work is the first step's
        if self._index:
            steps = self._index + inside / self._step
        else:
            steps = (self._trunk_done + inside) / (self._trunk + self._step)
        watch.fraction = max(watch.fraction, (watch.finished + steps / self._steps) / watch.runs)
        watch.meter.at(watch.finished * self._total + done)
