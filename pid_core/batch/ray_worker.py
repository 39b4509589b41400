"""The ray engine's worker: an actor with a model, on whatever machine of the cluster Ray puts it."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import torch

from ..assets import NANO_PATH
from ..captions.fingerprint import fingerprint
from ..errors import one_line
from ..printable import printable
from .jobs import Job, Options
from .report import FOLDER
from .results import RunStoppedError
from .run_row import RowRunner, Work
from .worker import Dropped, Message, OpenBridge, Ready, Stopped, open_runner


class RayWorker:
    """Ray calls it from several threads: while one draws, another reads the next picture and a third writes the last.

    So a picture, hundreds of megabytes as it is drawn, never leaves the machine on which it is read and written.
    """

    def __init__(self) -> None:
        self._drawing, self._finishing = threading.Lock(), threading.Event()
        self._runner: RowRunner | None = None

    def open(self, options: Options, threads: int, open_bridge: OpenBridge, folder: str) -> Message:
        """Load the model. folder: where the driver is, which relative paths begin at."""
        with contextlib.suppress(OSError):
            os.chdir(folder)
        torch.set_num_threads(threads)
        try:
            options = _as_here(options)
            device = "cuda" if torch.cuda.is_available() else "cpu"  # Ray shows each actor its own GPU alone
            self._runner = open_runner(options, device, open_bridge(device))
        except (ValueError, OSError) as error:
            return Stopped(one_line(error))
        return Ready()

    def run(self, job: Job) -> Message:
        """All stages of a job. Dropped where the run ended before it was drawn."""
        assert self._runner is not None
        work = Work(job)
        try:
            self._runner.load(work)
            with self._drawing:
                if self._finishing.is_set() and work.result is None:
                    return Dropped(job.number)
                self._runner.draw(work)
            self._runner.write(work)
        except RunStoppedError as error:
            return Stopped(str(error))
        assert work.result is not None
        return work.result

    def finish(self) -> None:
        """Draw nothing more that is not begun."""
        self._finishing.set()


def _as_here(options: Options) -> Options:
    """The options, as they hold on this machine. Raises ValueError where it does not see what the driver sees."""
    if not Path(options.out, FOLDER).is_dir():
        raise ValueError(
            f"{_here()} does not see {printable(options.out)}: pictures and --out have to lie where all of the cluster "
            "sees them under one path"
        )
    if not Path(options.model).is_file() and fingerprint(NANO_PATH) == options.model_fingerprint:
        options = replace(options, model=str(NANO_PATH))  # the package is elsewhere here
    if not Path(options.model).is_file():
        raise ValueError(f"{_here()} does not see {printable(options.model)}")
    if fingerprint(options.model) != options.model_fingerprint:
        raise ValueError(f"{_here()} has another file as {printable(options.model)}")
    return options


def _here() -> str:
    return f"the machine {printable(os.uname().nodename)}" if hasattr(os, "uname") else "a machine"
