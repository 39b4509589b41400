"""What the engines with workers share: jobs are handed out, counted before they are touched, and come once more.

A worker may be anything that takes jobs and dies: a process here (local.py), an actor on a cluster (ray_engine.py).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from ..images.files import remove_unfinished
from ..log import log
from .jobs import Job, Options
from .report import Report
from .results import CRASHED, FAILED, Result, RunStoppedError, result_of
from .worker import AHEAD, FINISH, Dropped, Message, Ready, Stopped

STARTS = 3  # of a worker that dies before it is ready


@dataclass(frozen=True)
class Death:
    """The last that is heard of a worker. how: it died, in a few words."""

    how: str


@dataclass(eq=False)
class Worker:
    """place: where it is, as a user calls it. jobs: in hand, by their numbers."""

    place: str
    ready: bool = False
    starts: int = 1
    told: bool = False  # to finish
    jobs: dict[str, Job] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether it has a job that was begun before: such a one is not put at a neighbour's side."""
        return any(job.again for job in self.jobs.values())

    def send(self, message: Job | None) -> None:
        """Hand it a job, or FINISH. One that has died is heard of by `Supervisor.heard`."""
        raise NotImplementedError


Kind = TypeVar("Kind", bound=Worker)


class Supervisor(Generic[Kind]):
    """Runs jobs on workers, one for each of places, and another where one dies.

    attempts: so often a job may be begun before one that was never heard of again counts as crashed. most_failed: more
    of them end the run. on_result: called with each.
    """

    def __init__(
        self,
        options: Options,
        places: Sequence[str],
        report: Report,
        *,
        attempts: int = 3,
        most_failed: int | None = None,
        on_result: Callable[[Result], None] = lambda result: None,
    ):
        self.options, self.report = options, report
        self.attempts, self.most_failed, self.on_result = attempts, most_failed, on_result
        self._workers: list[Kind] = []
        self._vacant = [(place, 1) for place in reversed(places)]  # and which start there it will be
        self._later: deque[Job] = deque()  # begun before: behind all others, one by one
        self._read_all = False
        self.finishing = False

    def start(self, place: str) -> Kind:
        """A worker, which says Ready when it is."""
        raise NotImplementedError

    def heard(self) -> Iterable[tuple[Kind, Message | Death]]:
        """What workers have said; nothing where none does for a second."""
        raise NotImplementedError

    def end(self, workers: Sequence[Kind]) -> None:
        """End them, at once where they have something in hand; afterwards none of them writes anything."""
        raise NotImplementedError

    def run(self, jobs: Iterator[Job]) -> bool:
        """Whether all jobs have ended; not where `finish` was called. Raises RunStoppedError in one line."""
        try:
            while True:
                self._fill_places()
                self._hand_out(jobs)
                if self._nothing_left and not any(worker.jobs for worker in self._workers):
                    return not self.finishing
                for worker, message in self.heard():
                    self._take(worker, message)
        finally:
            self._end()

    @property
    def _nothing_left(self) -> bool:
        return self.finishing or (self._read_all and not self._later)

    def finish(self) -> None:
        """Draw nothing more that is not begun."""
        self.finishing = True  # workers are told between two messages: this may be called in the middle of one

    def _fill_places(self) -> None:
        """Start workers in place of those that died, where there is something for them to do."""
        while self._vacant and not self._nothing_left:
            place, starts = self._vacant.pop()
            worker = self.start(place)
            worker.starts = starts
            self._workers.append(worker)

    def _hand_out(self, jobs: Iterator[Job]) -> None:
        for worker in self._workers:
            if self.finishing and not worker.told:
                worker.told = True
                worker.send(FINISH)
            while worker.ready and not self.finishing and (job := self._next(worker, jobs)) is not None:
                self.report.begin(job.key)
                worker.jobs[job.number] = job
                worker.send(job)

    def _next(self, worker: Kind, jobs: Iterator[Job]) -> Job | None:
        if len(worker.jobs) >= AHEAD or worker.alone:
            return None
        for job in jobs:
            if not self.report.attempts(job.key):
                return job
            self._once_more(job, "in another run")
        self._read_all = True
        return self._later.popleft() if self._later and not worker.jobs else None

    def _once_more(self, job: Job, how: str) -> None:
        """A job that was begun and never heard of again: behind all others, or it has crashed."""
        attempts = self.report.attempts(job.key)
        if attempts < self.attempts:
            self._later.append(replace(job, again=True))
            return
        remove_unfinished(Path(job.path), job.mark)
        error = f"its worker died {attempts} times with it in hand, the last time {how}"
        self._result(result_of(job, CRASHED, error=error, attempts=attempts))

    def _take(self, worker: Kind, message: Message | Death) -> None:
        if worker not in self._workers:  # of one that has been given up
            return
        if isinstance(message, Death):
            self._died(worker, message.how)
        elif isinstance(message, Ready):
            worker.ready = True
        elif isinstance(message, Stopped):
            raise RunStoppedError(message.reason)
        elif isinstance(message, Dropped):
            self.report.drop(worker.jobs.pop(message.number).key)
        else:
            job = worker.jobs.pop(message.number)
            self._result(replace(message, attempts=max(1, self.report.attempts(job.key))))

    def _result(self, result: Result) -> None:
        self.report.end(result)
        self.on_result(result)
        bad = self.report.counts[FAILED] + self.report.counts[CRASHED]
        if self.most_failed is not None and bad > self.most_failed:
            raise RunStoppedError(
                f"{bad} have failed, more than --max-failed {self.most_failed}; the last: {result.error}"
            )

    def _died(self, worker: Kind, how: str) -> None:
        """Its place is vacant; what it had in hand comes once more, alone, or has crashed."""
        if not worker.ready and worker.starts >= STARTS:
            raise RunStoppedError(f"the worker on {worker.place} died {STARTS} times before its first picture: {how}")
        log.warning("the worker on %s died: %s", worker.place, how)
        for job in worker.jobs.values():
            self._once_more(job, how)
        self._workers.remove(worker)
        self._vacant.append((worker.place, 1 if worker.ready else worker.starts + 1))

    def _end(self) -> None:
        self.end(self._workers)
        for worker in self._workers:
            for job in worker.jobs.values():  # its end is not their fault, and is no attempt
                remove_unfinished(Path(job.path), job.mark)
                with contextlib.suppress(OSError, RunStoppedError):
                    self.report.drop(job.key)
