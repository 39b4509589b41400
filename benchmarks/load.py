"""What loading a checkpoint costs, and a 4-step decode of a small canvas: time and memory.

    python -m benchmarks.load FILE [FILE ...] [--dtype bfloat16] [--latent 8]

One process per file. Memory in RAM of its own (anonymous) and mapped from the file are told apart: the
system can drop mapped pages at any time. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from pid_core import decode, load_network

COLUMNS = {
    "file": "file",
    "size": "GB",
    "read_s": "reading it, s",
    "load_s": "load, s",
    "ratio": "load / reading",
    "load_own": "peak own memory, load, GB",
    "decode": "decode",
    "decode_s": "4 steps, s",
    "decode_own": "peak own memory, decode, GB",
    "peak_rss": "peak with mapped pages, GB",
}


class Memory:
    """Samples this process's memory: `own` is the peak of anonymous pages since `reset`, in bytes."""

    def __init__(self, interval: float = 0.01):
        self._interval, self._stop = interval, threading.Event()
        self.own = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def reset(self) -> int:
        """Start the peak anew; returns what is in use now."""
        self.own = memory("RssAnon")
        return self.own

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self.own = max(self.own, memory("RssAnon"))


def memory(entry: str) -> int:
    """An entry of /proc/self/status in bytes: RssAnon, RssFile, VmHWM (peak of all resident pages)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system does not report {entry}")


def read_through(path: Path) -> float:
    """Seconds to read the file once, front to back."""
    buffer = bytearray(1 << 24)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def measure(path: Path, dtype: torch.dtype, cells: int) -> dict:
    """All figures for one file. The file is read once before, so that all is warm in the page cache."""
    read_through(path)
    watch = Memory()
    read_s = read_through(path)
    before = watch.reset()
    start = time.perf_counter()
    net = load_network(path, dtype=dtype)
    load_s, load_own = time.perf_counter() - start, watch.own - before
    config = net.config
    latent = torch.randn(1, config.latent_channels, cells, cells, generator=torch.Generator().manual_seed(0))
    caption = torch.randn(1, config.caption_length, config.caption_width, generator=torch.Generator().manual_seed(1))
    watch.reset()
    start = time.perf_counter()
    image = decode(net, latent, caption)
    decode_s = time.perf_counter() - start
    if not torch.isfinite(image).all():
        raise ValueError(f"{path.name} decodes to NaN or infinite values")
    return {
        "file": path.name,
        "size": f"{path.stat().st_size / 1e9:.2f}",
        "read_s": f"{read_s:.2f}",
        "load_s": f"{load_s:.2f}",
        "ratio": f"{load_s / read_s:.2f}",
        "load_own": f"{load_own / 1e9:.2f}",
        "decode": f"{cells} x {cells} -> {image.shape[-1]} x {image.shape[-2]}, {str(dtype).removeprefix('torch.')}",
        "decode_s": f"{decode_s:.1f}",
        "decode_own": f"{(watch.own - before) / 1e9:.2f}",
        "peak_rss": f"{memory('VmHWM') / 1e9:.2f}",
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--latent", type=int, default=8, help="latent cells on each side")
    parser.add_argument("--json", action="store_true", help="one file, its row as JSON")
    args = parser.parse_args(argv)
    if args.json:
        print(json.dumps(measure(args.files[0], getattr(torch, args.dtype), args.latent)))
        return 0
    print("| " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * len(COLUMNS), sep="\n")
    for path in args.files:
        command = [sys.executable, "-m", "benchmarks.load", str(path), "--json"]
        command += ["--dtype", args.dtype, "--latent", str(args.latent)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print("| " + " | ".join(row[key] for key in COLUMNS) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
