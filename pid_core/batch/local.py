"""The local engine: one supervised process for each device, started again when it dies.

Not of concurrent.futures, whose pool gives up all that is under way when one of its processes is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..images.files import remove_unfinished
from ..log import log
from .jobs import Job, Options
from .report import Report
from .results import CRASHED, FAILED, Result, RunStoppedError, result_of
from .worker import AHEAD, FINISH, Dropped, OpenBridge, Ready, Stopped, serve

STARTS = 3  # of a worker that dies before it is ready


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    device: str
    ready: bool = False
    starts: int = 1
    told: bool = False  # to finish
    jobs: dict[str, Job] = field(default_factory=dict)  # in hand

    @property
    def alone(self) -> bool:
        """Whether it has a job that was begun before: such a one is not put at a neighbour's side."""
        return any(job.again for job in self.jobs.values())


class LocalEngine:
    """Runs jobs on supervised workers, one for each entry of devices.

    attempts: so often a job may be begun before one that was never heard of again counts as crashed. most_failed: more
    of them end the run. on_result: called with each.
    """

    def __init__(
        self,
        options: Options,
        devices: Sequence[str],
        report: Report,
        *,
        open_bridge: OpenBridge,
        threads: int = 1,
        attempts: int = 3,
        most_failed: int | None = None,
        on_result: Callable[[Result], None] = lambda result: None,
    ):
        self.options, self.report, self.open_bridge = options, report, open_bridge
        self.threads, self.attempts, self.most_failed, self.on_result = threads, attempts, most_failed, on_result
        self._context = multiprocessing.get_context("spawn")
        self._devices = devices
        self._workers: list[_Worker] = []
        self._later: deque[Job] = deque()  # begun before: behind all others, one by one
        self._read_all = False
        self.finishing = False

    def run(self, jobs: Iterator[Job]) -> bool:
        """Whether all jobs have ended; not where `finish` was called. Raises RunStoppedError in one line."""
        self._workers = [self._start(device) for device in self._devices]
        try:
            while True:
                self._hand_out(jobs)
                nothing_left = self.finishing or (self._read_all and not self._later)
                if nothing_left and not any(worker.jobs for worker in self._workers):
                    return not self.finishing
                self._wait()
        finally:
            self._end()

    def finish(self) -> None:
        """Draw nothing more that is not begun."""
        self.finishing = True  # workers are told between two messages: this may be called in the middle of one

    def _start(self, device: str) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self.options, device, self.threads, self.open_bridge), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, device)

    def _hand_out(self, jobs: Iterator[Job]) -> None:
        for worker in self._workers:
            if self.finishing and not worker.told:
                worker.told = True
                _send(worker, FINISH)
            while worker.ready and not self.finishing and (job := self._next(worker, jobs)) is not None:
                self.report.begin(job.key)
                worker.jobs[job.number] = job
                _send(worker, job)

    def _next(self, worker: _Worker, jobs: Iterator[Job]) -> Job | None:
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

    def _wait(self) -> None:
        spoken = wait([worker.connection for worker in self._workers], timeout=1.0)
        for worker in [worker for worker in self._workers if worker.connection in spoken]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._died(worker)
            else:
                self._take(worker, message)

    def _take(self, worker: _Worker, message: Ready | Stopped | Dropped | Result) -> None:
        if isinstance(message, Ready):
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

    def _died(self, worker: _Worker) -> None:
        """Start another in its place; what it had in hand comes once more, alone, or has crashed."""
        worker.process.join()
        worker.connection.close()
        how = _how(worker.process.exitcode)
        if not worker.ready and worker.starts >= STARTS:
            raise RunStoppedError(f"the worker on {worker.device} died {STARTS} times before its first picture: {how}")
        for job in worker.jobs.values():
            self._once_more(job, how)
        if self.finishing:
            self._workers.remove(worker)
            return
        log.warning("the worker on %s died (%s); it is started again", worker.device, how)
        new = self._start(worker.device)
        new.starts = 1 if worker.ready else worker.starts + 1
        self._workers[self._workers.index(worker)] = new

    def _end(self) -> None:
        for worker in self._workers:
            if not worker.jobs and worker.ready:
                _send(worker, FINISH)
            else:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(timeout=30)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
            for job in worker.jobs.values():  # its end is not their fault, and is no attempt
                remove_unfinished(Path(job.path), job.mark)
                with contextlib.suppress(OSError):
                    self.report.drop(job.key)


def _send(worker: _Worker, message: Job | None) -> None:
    with contextlib.suppress(OSError):  # it has died, which the next wait finds
        worker.connection.send(message)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by signal {-code}" + (", perhaps for want of memory" if code == -9 else "")
    return f"exit code {code}"
