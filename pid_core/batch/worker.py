"""A worker: a process with a model on one device, which takes jobs from its supervisor and sends back results.

While one picture is drawn the next are read and the last is written, in threads. It ends when its supervisor does.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import one_line
from ..upscale.bridge import Bridge
from ..upscale.upscaler import Upscaler
from .children import be_deaf
from .jobs import Job, Options
from .results import Result, RunStoppedError
from .run_row import RowRunner, Work
from .texts import CaptionStore

READERS = WRITERS = 2
OpenBridge = Callable[[str], Bridge | None]  # of a device
AHEAD = 3  # jobs that a worker has in hand: one drawn, the next one read, and the last one written


class Ready(NamedTuple):
    """The model is loaded."""


class Stopped(NamedTuple):
    """No job can be done. reason: in a line."""

    reason: str


class Dropped(NamedTuple):
    """The job was not drawn, because the run ends."""

    number: str


Message = Ready | Stopped | Dropped | Result
FINISH = None  # sent to a worker: draw nothing more that is not begun


def open_runner(options: Options, device: str, bridge: Bridge | None = None) -> RowRunner:
    """What a worker loads before its first job. Raises ValueError or OSError in one line where it cannot be had."""
    upscaler = Upscaler.load(Path(options.model), torch.device(device), bridge, family=options.family)
    captions = CaptionStore(options.out, options.clip_fingerprint) if options.clip else None
    return RowRunner(options, upscaler, captions)


def serve(connection: Connection, options: Options, device: str, threads: int, open_bridge: OpenBridge) -> None:
    """The worker's process, from its start to its end."""
    be_deaf()
    torch.set_num_threads(threads)
    channel = _Channel(connection)
    try:
        runner = open_runner(options, device, open_bridge(device))
    except (ValueError, OSError) as error:
        channel.send(Stopped(one_line(error)))
        return
    channel.send(Ready())
    try:
        _Pipeline(runner, channel).run()
    except RunStoppedError as error:
        channel.send(Stopped(str(error)))


class _Channel:
    """A connection that several threads write to."""

    def __init__(self, connection: Connection):
        self._connection, self._lock = connection, threading.Lock()

    def send(self, message: Message) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)  # nobody is left to work for

    def receive(self) -> Job | None:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)


class _Pipeline:
    def __init__(self, runner: RowRunner, channel: _Channel):
        self.runner, self.channel = runner, channel
        self.read: queue.Queue[tuple[Work, Future] | None] = queue.Queue()
        self.finishing = threading.Event()

    def run(self) -> None:
        """Until the supervisor says that it is enough."""
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(WRITERS) as writers:
            threading.Thread(target=self._listen, args=(readers,), daemon=True).start()
            writing: list[Future] = []
            while (item := self.read.get()) is not None:
                work, reading = item
                reading.result()
                if self.finishing.is_set() and work.result is None:
                    self.channel.send(Dropped(work.job.number))
                    continue
                self.runner.draw(work)
                writing = [future for future in writing if not _ended(future)]
                writing.append(writers.submit(self._write, work))
                writing[-1].add_done_callback(self._written)
            for future in writing:
                future.result()

    def _listen(self, readers: ThreadPoolExecutor) -> None:
        while (job := self.channel.receive()) is not FINISH:
            work = Work(job)
            self.read.put((work, readers.submit(self.runner.load, work)))
        self.finishing.set()
        self.read.put(None)

    def _write(self, work: Work) -> None:
        self.runner.write(work)
        assert work.result is not None
        self.channel.send(work.result)

    def _written(self, future: Future) -> None:
        if future.exception() is not None:
            self.read.put(None)  # there may be nothing more to come, which would bring it to light


def _ended(future: Future) -> bool:
    if future.done():
        future.result()  # raises what it raised
        return True
    return False
