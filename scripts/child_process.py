"""A program run to its end in this one's place, on any system. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_to_end(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None) -> int:
    """Runs it in this terminal and returns its exit code; 127 where there is no such program, with a line.

    Ctrl-C reaches it as well, so it is waited for; SIGTERM is handed on.
    """
    words = [str(word) for word in command]
    try:
        child = subprocess.Popen(words, cwd=cwd, env=env)
    except OSError as error:
        print(f"{words[0]}: {error.strerror}", flush=True)
        return 127
    stopped = False

    def on_interrupt(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, on_interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: child.terminate()),
    }
    try:
        code = _wait(child)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        raise KeyboardInterrupt
    return code if code >= 0 else 128 - code


def _wait(child: subprocess.Popen) -> int:
    if os.name != "nt":
        return child.wait()
    while True:  # in steps, for no handler of Python's is called while Windows waits
        try:
            return child.wait(0.2)
        except subprocess.TimeoutExpired:
            continue


def become(command: Sequence[str | Path], *, cwd: Path, system: str = os.name) -> int:
    """Runs it in this process's place where the system can; else to its end, and returns its exit code.

    Windows has execv in name only: there the caller's terminal goes on at once, without its output and its exit code.
    """
    if system == "nt":
        return run_to_end(command, cwd=cwd)
    words = [str(word) for word in command]
    os.chdir(cwd)
    os.execv(words[0], words)
