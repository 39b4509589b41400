"""The local engine: one supervised process for each device, started again when it dies.

Not of concurrent.futures, whose pool gives up all that is under way when one of its processes is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from .children import start_deaf
from .jobs import Job, Options
from .report import Report
from .supervisor import Death, Supervisor, Worker
from .worker import FINISH, Message, OpenBridge, serve


@dataclass(eq=False, kw_only=True)
class _Process(Worker):
    process: BaseProcess
    connection: Connection

    def send(self, message: Job | None) -> None:
        with contextlib.suppress(OSError):  # it has died, which the next wait finds
            self.connection.send(message)


class LocalEngine(Supervisor[_Process]):
    """Runs jobs on processes here, one for each entry of devices. threads: of each. more: see Supervisor."""

    def __init__(
        self,
        options: Options,
        devices: Sequence[str],
        report: Report,
        *,
        open_bridge: OpenBridge,
        threads: int = 1,
        **more: Any,
    ):
        super().__init__(options, devices, report, **more)
        self.open_bridge, self.threads = open_bridge, threads
        self._context = multiprocessing.get_context("spawn")

    def start(self, place: str) -> _Process:
        """See `Supervisor`."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self.options, place, self.threads, self.open_bridge), daemon=True
        )
        start_deaf(process)
        theirs.close()
        return _Process(place, process=process, connection=ours)

    def heard(self) -> Iterator[tuple[_Process, Message | Death]]:
        """See `Supervisor`."""
        spoken = wait([worker.connection for worker in self._workers], timeout=1.0)
        for worker in [worker for worker in self._workers if worker.connection in spoken]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                worker.connection.close()
                message = Death(_how(worker.process.exitcode))
            yield worker, message

    def end(self, workers: Sequence[_Process]) -> None:
        """See `Supervisor`."""
        for worker in workers:
            if not worker.jobs and worker.ready:
                worker.send(FINISH)
            else:
                worker.process.kill()
        for worker in workers:
            worker.process.join(timeout=30)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by signal {-code}" + (", perhaps for want of memory" if code == -9 else "")
    return f"exit code {code}"
