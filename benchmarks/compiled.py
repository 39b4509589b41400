"""What torch.compile gains on this machine's CPU: the bundled model, uncompiled beside the loader's two ways.

    python -m benchmarks.compiled --side 256 --threads 1

Figures of a step are medians of calls that take turns: seconds by the clock, and of the processor, which other programs
change less; with one thread they are alike on a free machine. The first call of a way compiles, with PyTorch's caches
empty for it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pid_core import NANO_PATH, load_network
from pid_core.model.compiled import HOW, Compiled

from .compare_core import table


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of the processor."""
    begin = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


@torch.inference_mode()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--how", nargs="*", choices=HOW, default=list(HOW))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    net, side = load_network(NANO_PATH), args.side
    config = net.config
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, side, side, generator=generator)
    features = torch.randn(1, (side // config.patch_size) ** 2, config.lq_width, generator=generator)
    caption = net.default_caption.expand(1, -1, -1)

    def call(compiled: Compiled | None) -> Tensor:
        net.driver.compiled = compiled
        return net(x, torch.tensor([866.0]), caption, lq_features=features, degrade_sigma=torch.tensor([0.1]))

    ways, first = {"not compiled": None}, {}
    for how in args.how:
        ways[how] = Compiled(how)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            first[how], _ = seconds(lambda how=how: call(ways[how]))
        print(f"{how}: first call {first[how]:.0f} s {ways[how].why_not or ''}", flush=True)
    expected = call(None)
    times = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, compiled in ways.items():
            times[name].append(seconds(lambda compiled=compiled: call(compiled)))
    middle = {name: [statistics.median(kind) for kind in zip(*values, strict=True)] for name, values in times.items()}
    rows = [
        {
            f"pid_nano, {side} x {side}, float32": name,
            "first call, s": f"{first[name]:.0f}" if name in first else "",
            "step, s": f"{middle[name][0]:.3f}",
            "least": f"{min(times[name])[0]:.3f}",
            "of the processor": f"{middle[name][1]:.3f}",
            "speed by it": f"{middle['not compiled'][1] / middle[name][1]:.2f}",
            "largest difference": f"{(call(ways[name]) - expected).abs().max():.1e}",
        }
        for name in ways
    ]
    print(
        f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads, PyTorch {torch.__version__}\n\n{table(rows)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
