"""The ray engine: workers are actors on a Ray cluster, supervised from here.

By actors and not by a Ray Data pipeline. The manifest, the texts' captions and the report belong to the driver, which
streams; a pipeline would read the manifest in one of its own tasks, send each drawn picture (200 MB at 4096 x 4096)
through its object store to be written, and repeat a row that kills its worker for ever. Here an attempt is counted on
the driver's disk before the row leaves it, as for any other worker.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ..log import log
from ..printable import printable
from .jobs import Job, Options
from .ray_worker import RayWorker
from .report import Report
from .results import RunStoppedError
from .supervisor import Death, Supervisor, Worker
from .worker import AHEAD, FINISH, Message, OpenBridge

PACKAGES = ("pid_core", "pid_bridges")
PATIENCE = 120.0  # seconds for a cluster to start a first worker, until that is said to take long
PATIENCE_TO_CONNECT = 10.0
BESIDE_GPU = 4  # CPUs, for pictures that are read and written meanwhile
STORE = 2**27  # bytes of a local cluster's object store: results are a line each
# Read by Ray as it starts: nothing is sent home, nothing is printed, workers are as nice as any process.
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}


class Crew(NamedTuple):
    """workers: how many. threads: CPUs of each. gpus: of each, 0 or 1."""

    workers: int
    threads: int
    gpus: int


class Cluster:
    """A Ray cluster: the one at an address, or one of this machine that ends with the run.

    Raises ValueError in one line where Ray is not installed, or does not answer.
    """

    def __init__(self, address: str | None = None):
        self.ray = import_ray()
        self.address = address or os.environ.get("RAY_ADDRESS")
        self._ours = not self.ray.is_initialized()
        if self._ours:
            self._connect()

    def _connect(self) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        try:
            if self.address:
                _knock(self.address)
                self.ray.init(address=self.address, runtime_env=_shipped(), **quiet)
            else:
                self.ray.init(address="local", include_dashboard=False, object_store_memory=STORE, **quiet)
        except (RuntimeError, ConnectionError, ValueError, OSError, AssertionError) as error:
            if not self.address:
                raise ValueError(f"Ray cannot be started here: {_first_line(error)}") from None
            raise ValueError(
                f"the Ray cluster at {printable(self.address)} does not answer: is the address right, and is "
                f"RAY_AUTH_MODE as it is there? ({_first_line(error)})"
            ) from None

    def close(self) -> None:
        """Leave it; one of our own ends."""
        if self._ours:
            self.ray.shutdown()

    def crew(self, workers: int | None, threads: int | None) -> Crew:
        """Workers for all of its GPUs, or on CPUs one, unless told. Raises ValueError where they do not fit."""
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        cpus = [int(machine.get("CPU", 0)) for machine in machines]
        gpus = [int(machine.get("GPU", 0)) for machine in machines]
        workers, each = workers or sum(gpus) or 1, min(sum(gpus), 1)

        def room(threads: int) -> int:
            return sum(min(cpu // threads, gpu if each else cpu) for cpu, gpu in zip(cpus, gpus, strict=True))

        most = BESIDE_GPU if each else max(cpus, default=1)
        threads = threads or next((count for count in range(most, 1, -1) if room(count) >= workers), 1)
        if room(threads) < workers:
            what = f"{_count(threads, 'CPU')} and a GPU" if each else _count(threads, "CPU")
            raise ValueError(
                f"the Ray cluster has room for {_count(room(threads), 'worker')} of {what}, not for {workers}: "
                f"{_count(sum(cpus), 'CPU')} and {_count(sum(gpus), 'GPU')} on {_count(len(machines), 'machine')}"
            )
        return Crew(workers, threads, each)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def import_ray() -> Any:
    """The library. Raises ValueError in one line where it is not installed."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise ValueError('the engine ray needs Ray, which is not installed: pip install ".[ray]"') from None
    return ray


@dataclass(eq=False, kw_only=True)
class _Actor(Worker):
    engine: RayEngine
    actor: Any

    def send(self, message: Job | None) -> None:
        if message is FINISH:
            self.actor.finish.remote()
        else:
            self.engine.call(self, self.actor.run, message)


class RayEngine(Supervisor[_Actor]):
    """Runs jobs on actors of a cluster. more: see Supervisor."""

    def __init__(
        self, options: Options, cluster: Cluster, crew: Crew, report: Report, *, open_bridge: OpenBridge, **more: Any
    ):
        super().__init__(options, [f"Ray's worker {number}" for number in range(crew.workers)], report, **more)
        self._cluster, self._ray = cluster, cluster.ray
        self._open_bridge, self._threads = open_bridge, crew.threads
        self._inbox: queue.SimpleQueue[tuple[_Actor, Message | Death | Exception]] = queue.SimpleQueue()
        errors = cluster.ray.exceptions
        self._deaths = (errors.RayActorError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError)
        self._patient_until = time.monotonic() + PATIENCE
        self._open = 0  # calls that have not come back
        self._make = cluster.ray.remote(RayWorker).options(
            num_cpus=crew.threads,
            num_gpus=crew.gpus,
            max_concurrency=AHEAD + 1,  # one more, for `finish`
            scheduling_strategy="SPREAD",
        )

    def run(self, jobs: Iterator[Job]) -> bool:
        """See `Supervisor`. What Ray says of a worker's end, at length and on stdout, is left out."""
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            return super().run(jobs)

    def start(self, place: str) -> _Actor:
        """See `Supervisor`."""
        worker = _Actor(place, engine=self, actor=self._make.remote())
        self.call(worker, worker.actor.open, self.options, self._threads, self._open_bridge, os.getcwd())
        return worker

    def call(self, worker: _Actor, method: Any, *arguments: Any) -> None:
        """What it returns, or that the worker has died, is heard later."""
        self._open += 1
        method.remote(*arguments).future().add_done_callback(partial(self._came, worker))

    def _came(self, worker: _Actor, future: Any) -> None:
        error = future.exception()
        self._inbox.put((worker, future.result() if error is None else error))

    def heard(self) -> Iterable[tuple[_Actor, Message | Death]]:
        """See `Supervisor`."""
        try:
            worker, message = self._inbox.get(timeout=1.0)
        except queue.Empty:
            self._say_that_it_waits()
            return
        self._open -= 1
        if isinstance(message, Exception):
            if not isinstance(message, self._deaths):
                raise RunStoppedError(f"{worker.place} cannot work: {_reason(message)}")
            self._ray.kill(worker.actor)  # one that only cannot be reached may live on
            message = Death("its process ended, perhaps for want of memory")
        yield worker, message

    def _say_that_it_waits(self) -> None:
        if time.monotonic() > self._patient_until and not any(worker.ready for worker in self._workers):
            self._patient_until = math.inf
            log.warning("no worker has started yet: the cluster's CPUs or GPUs are taken, or it is slow to start")

    def end(self, workers: Sequence[_Actor]) -> None:
        """See `Supervisor`."""
        for worker in workers:
            self._ray.kill(worker.actor)
        with contextlib.suppress(queue.Empty):
            while self._open:
                self._inbox.get(timeout=10.0)
                self._open -= 1
        self._cluster.close()


def _knock(address: str) -> None:
    """Raise OSError where nobody answers, for which Ray itself takes minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host, int(port)), timeout=PATIENCE_TO_CONNECT):
            pass


def _shipped() -> dict[str, Any]:
    """The same code as here, for machines that need not have it."""
    found = [spec for spec in map(find_spec, PACKAGES) if spec is not None and spec.origin is not None]
    return {"py_modules": [str(Path(spec.origin).parent) for spec in found if spec.origin is not None]}


def _reason(error: Exception) -> str:
    return _first_line(getattr(error, "cause", None) or error)


def _first_line(error: BaseException) -> str:
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], 300)
