"""Processes of a run's own, which leave it to their parent to hear Ctrl-C and a batch system's notice."""

from __future__ import annotations

import signal
from multiprocessing.process import BaseProcess

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # they reach the whole group, or job step


def start_deaf(process: BaseProcess) -> None:
    """Start it so that it hears neither, from its first moment: while it still imports, they would be a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        process.start()
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which else starts with the process, and lets the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def be_deaf() -> None:
    """To be called by the process, where it could not be started so."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
