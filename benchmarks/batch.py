"""What `batch` costs beside the decodes, and what it would do on many machines.

    python -m benchmarks.batch

Measured: 200 pictures of 8 x 8 pixels by the plain loop and by the local engine with one worker, in one run; the
difference is what a row costs in the engine. Measured with decodes of fixed time that take no CPU: eight workers on
this machine, as a machine with eight GPUs would have. Computed: 100 machines that share ten million rows by --shard.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pid_core import NANO_PATH
from pid_core.batch.jobs import Options
from pid_core.batch.local import LocalEngine
from pid_core.batch.plan import jobs_in
from pid_core.batch.report import FOLDER, Report
from pid_core.batch.run_row import RowRunner, run_row
from pid_core.batch.shards import Shard
from pid_core.batch.worker import open_runner
from pid_core.captions.fingerprint import fingerprint
from pid_core.upscale.bridge import no_bridge

SECONDS = 1.0  # of a decode that is only waited for


def waits(device: str) -> None:
    """In place of a bridge, in the worker: decodes that take SECONDS and no CPU."""

    def draw(self: RowRunner, work) -> None:
        if work.result is None:
            time.sleep(SECONDS)
            work.image = torch.zeros(32, 32, 3)

    RowRunner.draw = draw  # type: ignore[method-assign]


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:05}.png")
    return folder


def options(out: Path) -> Options:
    return Options(str(out), str(NANO_PATH), fingerprint(NANO_PATH))


def plain_loop(source: Path, out: Path) -> float:
    """Seconds a row, once the model is loaded."""
    chosen = options(out)
    runner, begun, count = open_runner(chosen, "cpu"), time.perf_counter(), 0
    for job in jobs_in(str(source), chosen, Shard()):
        count += run_row(runner, job).status == "done"
    return (time.perf_counter() - begun) / count


def local_engine(source: Path, out: Path, workers: int, open_bridge=no_bridge) -> tuple[float, float]:
    """Seconds a row from the first result to the last, and seconds from the start to the first."""
    times: list[float] = []
    chosen, begun = options(out), time.perf_counter()
    with Report(out) as report:
        engine = LocalEngine(
            chosen,
            ["cpu"] * workers,
            report,
            open_bridge=open_bridge,
            on_result=lambda result: times.append(time.perf_counter()),
        )
        engine.run(jobs_in(str(source), chosen, Shard()))
    return (times[-1] - times[0]) / (len(times) - 1), times[0] - begun


def shards(rows: int, machines: int, workers: int, spread: float = 0.5) -> float:
    """Throughput of the slowest of `machines` against the mean, row times lognormal with this deviation."""
    rng = np.random.default_rng(0)
    share = rows // machines
    # of so many rows a machine's time is normal, to any digit that counts
    deviation = np.sqrt(np.exp(spread**2) - 1)
    times = 1 + deviation / np.sqrt(share) * rng.standard_normal(machines)
    return float(1 / (times.max() + workers / share))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8, help="of the machine that is stood in for")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = pictures(folder / "in", args.rows)
        plain = plain_loop(source, folder / "plain")
        engine, start = local_engine(source, folder / "engine", 1)
        waited, _ = local_engine(source, folder / "waited", args.workers, waits)
        line = (folder / "engine" / FOLDER / "report.jsonl").stat().st_size / args.rows
    print(f"- plain loop {1000 * plain:.1f} ms a row, local engine {1000 * engine:.1f} ms a row (one worker)")
    print(f"- the first picture {start:.1f} s after the start: a worker's, also of one that is started again")
    ideal = args.workers / SECONDS
    print(
        f"- {args.workers} workers with decodes of {SECONDS:g} s that take no CPU: {1 / waited:.2f} rows a second, "
        f"{100 / waited / ideal:.0f} % of {ideal:g}"
    )
    print(
        f"- ten million rows on 100 such machines by --shard: {100 * shards(10**7, 100, args.workers):.1f} % of ideal"
    )
    print(f"- the report of ten million rows: {line * 1e7 / 1e9:.1f} GB as jsonl ({line:.0f} bytes a row)")
    print(json.dumps({"plain": plain, "engine": engine, "start": start, "waited": waited}))


if __name__ == "__main__":
    main()
