"""How far a run is, in work, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

OnPart = Callable[[float], None]  # the fraction of a network call that is done
INTERVAL = 0.3  # seconds between two reports
SETTLED = 0.5, 0.03  # seconds, and the fraction of the work, after which a rate is believed


class Meter:
    """The work of a run that is done, and when to speak of it.

    total: all of the work, in any unit that time is about proportional to; it may be corrected. report is called with
    this meter when more is done, at most once in INTERVAL seconds of `clock`, and at the end. What is done never falls.
    """

    def __init__(self, total: float, report: Callable[[Meter], None], clock: Callable[[], float] = time.monotonic):
        self.total, self.done = total, 0.0
        self._report, self._clock = report, clock
        self._started = self._last_report = clock()
        self._skipped = 0.0, 0.0  # work and seconds that tell nothing of the rest

    def at(self, done: float) -> None:
        """So much of the work is done."""
        self.done = min(max(done, self.done), self.total)
        now = self._clock()
        if now - self._last_report >= INTERVAL or (self.done >= self.total and self._last_report < now):
            self._last_report = now
            self._report(self)

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1."""
        return self.done / self.total if self.total else 1.0

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock() - self._started

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What is done meanwhile takes another time than the rest will: the rate leaves it out."""
        done, began = self.done, self._clock()
        try:
            yield
        finally:
            work, seconds = self._skipped
            self._skipped = work + self.done - done, seconds + self._clock() - began

    @property
    def rate(self) -> float | None:
        """Work per second so far; None before there is something to measure."""
        done, seconds = self.done - self._skipped[0], self.seconds - self._skipped[1]
        settled = seconds >= SETTLED[0] and done >= SETTLED[1] * self.total > 0
        return done / seconds if settled else None

    @property
    def seconds_left(self) -> float | None:
        """None until a rate is known."""
        return None if self.rate is None else (self.total - self.done) / self.rate


def when_done(on_part: OnPart, device: torch.device) -> OnPart:
    """`on_part` for a network on `device`, told of a part when it is computed and not when it is queued.

    A GPU's queue would else run ahead by a whole call. Waiting for the part before keeps one part queued at any time,
    so the device never waits.
    """
    if device.type != "cuda":
        return on_part
    before: list[tuple] = []

    def queued(fraction: float) -> None:
        event = torch.cuda.Event()
        event.record()
        before.append((event, fraction))
        if len(before) > 1:
            event, fraction = before.pop(0)
            event.synchronize()
            on_part(fraction)

    return queued


def duration(seconds: float) -> str:
    """Such as "3 s", "40 s", "2 min", "1 h 20 min": as exact as an estimate is."""
    if seconds < 60:
        step = 1 if seconds < 10 else 5
        seconds = max(1, round(seconds / step) * step)
        return f"{seconds} s" if seconds < 60 else "1 min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
