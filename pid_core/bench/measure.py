"""Seconds and bytes of what runs on a device."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

INTERVAL = 0.005  # seconds between two looks at the memory, where the device keeps no record of its peak


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for."""
    wait = getattr(getattr(torch, device.type, None), "synchronize", None)
    if device.type != "cpu" and wait is not None:
        wait()


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Of one call, from when the device is idle until it is again."""
    synchronise(device)
    begin = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - begin


def free(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    empty = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if device.type == "cpu":
        _trim()
    elif empty is not None:
        empty()


def _trim() -> None:
    """glibc keeps what was freed, and the next peak would not show above it."""
    with suppress(OSError, AttributeError):  # another system, or another libc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@dataclass
class Peak:
    """bytes: the most that was taken above what was there before; None where this device does not tell."""

    bytes: int | None = None


@contextmanager
def watched(device: torch.device) -> Iterator[Peak]:
    """Watches the memory of a device: of a GPU what PyTorch takes of it, of a CPU what this process does."""
    free(device)
    peak = Peak()
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats()
        before = module.memory_allocated()
        yield peak
        peak.bytes = max(module.max_memory_allocated() - before, 0)
        return
    now = getattr(module, "current_allocated_memory", None) if device.type != "cpu" else own_memory
    if now is None or now() is None:
        yield peak
        return
    with _Sampler(now) as sampler:
        yield peak
    peak.bytes = sampler.most


class _Sampler:
    """Looks at a memory again and again."""

    def __init__(self, now: Callable[[], int | None]):
        self._now, self._stop, self._before, self.most = now, threading.Event(), now() or 0, 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.most = max(self.most, (self._now() or 0) - self._before)


def own_memory() -> int | None:
    """Bytes of main memory that are this process's own, pages mapped from files left out; None where nobody tells."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import psutil
    except ImportError:
        return None
    memory = psutil.Process().memory_info()
    return getattr(memory, "private", memory.rss)  # of Windows, where mapped pages count otherwise
