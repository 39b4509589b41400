"""Processes of a run's own, which leave it to their parent to hear Ctrl-C and a batch system's notice."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # they reach the whole group, or job step


def start_deaf(process: BaseProcess) -> None:
    """Start it so that it hears neither, from its first moment: while it still imports, they would be a traceback."""
    with _console_ignored() if sys.platform == "win32" else _signals_held():
        process.start()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which else starts with the process, and lets the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _console_ignored() -> Iterator[None]:
    """On Windows a process takes over from its parent that it ignores Ctrl-C."""
    import ctypes

    ignore = ctypes.windll.kernel32.SetConsoleCtrlHandler  # type: ignore[attr-defined]
    ignore(None, True)
    try:
        yield
    finally:
        ignore(None, False)


def be_deaf() -> None:
    """To be called by the process, where it could not be started so."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
