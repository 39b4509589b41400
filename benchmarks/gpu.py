"""On an NVIDIA card: our network beside ComfyUI core's, attention kernels, and every fused kernel against the floor.

    python -m benchmarks.gpu --sides 1024 2048 --full 4096
    python -m benchmarks.gpu --only attention kernels
    python -m benchmarks.gpu --only bits
    python -m benchmarks.gpu --only compile --limit 90

Needs ComfyUI where `make setup` puts it. Both networks have the same random full-size weights and ComfyUI's own
operations. A figure is the median of runs that fill 100 ms at least, by CUDA events, taking turns. Core runs its LQ
projector in each step, ours once per decode: a decode is four steps, and ours adds the trunk.
"""

from __future__ import annotations

import argparse
import gc
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pid_core import PiDConfig, PiDNetwork
from pid_core.model import attention, fused, ops
from pid_core.model.compiled import Compiled
from pid_core.model.cost import forward_work
from pid_core.model.positions import image_rope, sine_cosine
from pid_core.sampling.predict import predict_x0_by_windows
from pid_core.windows.plan import plan_windows
from pid_core.windows.run import WindowRun

from .bits import report_bits
from .compare_core import Core, Inputs, T, in_core_layout, our_network, table
from .synthetic import full_size_config, scaled

MILLISECONDS = 100.0
PARTS = ("attention", "kernels", "steps", "distance", "profile", "bits", "compile")
DTYPE = torch.bfloat16


def random_state(config: PiDConfig) -> dict[str, Tensor]:
    """Random weights made on the card; see `synthetic` for their sizes."""
    torch.manual_seed(0)
    shapes = PiDNetwork(config, dtype=DTYPE, device="meta").state_dict()
    return {n: scaled(n, torch.randn(like.shape, device="cuda")).to(DTYPE) for n, like in shapes.items()}


def milliseconds(runs: dict[str, Callable[[], object]], turns: int = 5) -> dict[str, float]:
    """The median of each, taking turns; a turn repeats a run until it has taken MILLISECONDS."""
    times, repeats = {name: [] for name in runs}, {}
    for name, run in runs.items():
        run()
        repeats[name] = max(1, round(MILLISECONDS / _timed(run, 1) / turns))
    for _ in range(turns):
        for name, run in runs.items():
            times[name].append(_timed(run, repeats[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def _timed(run: Callable[[], object], repeats: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeats


def peak(run: Callable[[], object]) -> float:
    """GB above what was there before."""
    gc.collect()  # what goes during the run would hide as much of what comes
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


@contextmanager
def flash_first() -> Iterator[None]:
    """PyTorch's attention in ComfyUI's order of kernels."""
    order = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        yield


def by_flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with flash_first():
        return attention.sdpa(q, k, v)


class Rates:
    """What this card does in a large product and a large copy."""

    def __init__(self):
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=DTYPE) for _ in range(2))
        source = torch.randn(1 << 29, device="cuda")
        target = torch.empty_like(source)
        times = milliseconds({"product": lambda: a @ b, "copy": lambda: target.copy_(source)})
        self.flops = 2 * 8192**3 / times["product"] * 1e3
        self.bandwidth = 2 * source.nbytes / times["copy"] * 1e3

    def describe(self) -> str:
        name, cc = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.strip()
        return (
            f"{name} (sm_{cc[0]}{cc[1]}), driver and clocks {driver}, PyTorch {torch.__version__}, cuDNN "
            f"{torch.backends.cudnn.version()}; a product of 8192 runs at {self.flops / 1e12:.0f} TFLOP/s in bfloat16, "
            f"a copy moves {self.bandwidth / 1e12:.2f} TB/s"
        )


def report_attention(_: Rates, __: PiDConfig) -> str:
    rows = []
    for heads, head_dim in ((24, 64), (16, 72)):
        for side in (1024, 2048, 4096):
            tokens = (side // 16) ** 2 + 300 * (head_dim == 64)
            q, k, v = (
                torch.randn(1, tokens, heads, head_dim, device="cuda", dtype=DTYPE).transpose(1, 2) for _ in range(3)
            )
            exact = F.scaled_dot_product_attention(*(t[:, :2].float() for t in (q[:, :, :512], k, v)))
            runs, off = {}, {}
            for backend in attention.CANDIDATES:

                def run(backend=backend, q=q, k=k, v=v):
                    return attention._sdpa_by(backend, q, k, v)

                try:
                    off[backend.name] = ((run()[:, :2, :512].float() - exact).norm() / exact.norm()).item()
                    runs[backend.name] = run
                except RuntimeError as error:
                    print(backend.name, str(error)[:200])
            flop = 4 * heads * head_dim * tokens**2
            for name, taken in milliseconds(runs, turns=3).items():
                rate = f"{flop / taken / 1e9:.0f}"
                rows.append(
                    {
                        "attention": f"head dim {head_dim}, {tokens} tokens, {name.lower()}",
                        "ms": f"{taken:.2f}",
                        "TFLOP/s": rate,
                        "error": f"{off[name]:.1e}",
                    }
                )
    return table(rows)


def kernel_runs(config: PiDConfig, side: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Every fused kernel at this size, and the bytes it moves at least."""
    n, d, p, pixel = (side // 16) ** 2, config.hidden_size, config.pixel_hidden_size, 256
    new = torch.randn
    half = {"device": "cuda", "dtype": DTYPE}
    s, x, weight = new(1, n, d, device="cuda"), new(1, n, d, **half), new(d, device="cuda")
    line = ops.split_modulation(new(1, 1, 6 * d, device="cuda"))[0]
    k = torch.ops.pidkit
    runs = {
        "norm_modulate": (lambda: k.norm_modulate(s, weight, line.shift, line.scale, DTYPE), 6 * n * d),
        "gate_add": (lambda: k.gate_add(s, line.gate, x), 10 * n * d),
        "gate_add_norm_modulate": (
            lambda: k.gate_add_norm_modulate(s, line.gate, x, weight, line.shift, line.scale),
            12 * n * d,
        ),
    }
    for heads, head_dim in ((24, 64), (16, 72)):
        qkv = new(1, n, 3 * heads * head_dim, **half)
        buffers = [torch.empty(1, n, heads, head_dim, **half).transpose(1, 2) for _ in range(3)]
        rope, norm = (
            image_rope(side // 16, side // 16, head_dim, reference=64, device="cuda"),
            new(head_dim, device="cuda"),
        )
        runs[f"place_heads {head_dim}"] = (
            lambda qkv=qkv, norm=norm, rope=rope, buffers=buffers: k.place_heads(qkv, norm, norm, *rope, *buffers),
            2 * qkv.nbytes + 2 * rope[0].nbytes,
        )
    a, b = new(1, n // 4, config.mlp_size, **half), new(1, n // 4, config.mlp_size, **half)
    runs["silu_mul"] = lambda: k.silu_mul(a, b), 3 * a.nbytes
    gate = new(1, 2 * d, **half), new(1, **half), new(1, 1, 1, device="cuda")
    runs["token_gate"] = lambda: k.token_gate(s, x, *gate), 10 * n * d
    te = new(1, 1, d, device="cuda")
    runs["condition_gate"] = lambda: k.condition_gate(s, te, x, *gate), 8 * n * d
    image, tables = new(1, 3, side, side, device="cuda"), [sine_cosine(0, side, 8, device="cuda")] * 2
    embed = new(p, 3, device="cuda"), new(p, device="cuda")
    runs["pixel_embed"] = lambda: k.pixel_embed(image, *embed, *tables, 16, 0, n), image.nbytes + 4 * n * pixel * p
    u, modulation = new(1, n, pixel, p, device="cuda"), new(1, n, 6 * pixel * p, **half)
    attended, norm = new(1, n, pixel * p, **half), new(p, device="cuda")
    runs["pixel_begin"] = lambda: k.pixel_begin(u, norm, modulation), n * pixel * p * (4 + 2 * 2 + 2)
    m = config.pixel_mlp_size
    mlp = new(m, p, **half), new(m, **half), new(p, m, **half), new(p, **half)
    u.mul_(0.1)
    modulation.mul_(0.1)
    runs["pixel_end"] = lambda: k.pixel_end(u, attended, modulation, norm, *mlp), n * pixel * p * (8 + 2 + 4 * 2)
    out = new(3, p, device="cuda"), new(3, device="cuda")
    runs["pixel_out"] = lambda: k.pixel_out(u, norm, *out), n * pixel * (4 * p + 12)
    return runs


def report_kernels(rates: Rates, config: PiDConfig) -> str:
    fused.register()
    runs = kernel_runs(config, 2048)
    times = milliseconds({name: run for name, (run, _) in runs.items()}, turns=3)
    rows = []
    for name, taken in times.items():
        moved = runs[name][1]
        share = moved / rates.bandwidth / taken * 1e3
        rows.append(
            {"kernel at 2048": name, "ms": f"{taken:.3f}", "GB": f"{moved / 1e9:.3f}", "floor / ms": f"{share:.2f}"}
        )
    return table(rows)


class Pair:
    """Both networks with the same weights, and ways to call them."""

    def __init__(self, config: PiDConfig, core: Core):
        self.config, self.core = config, core
        state = random_state(config)
        self.ours = our_network(state, config, DTYPE, core.operations)
        self.theirs = core.network(in_core_layout(state, config), DTYPE)

    def runs(self, side: int) -> dict[str, Callable[[], Tensor]]:
        inputs = Inputs(self.config, side, side, "cuda")
        features = self.ours.encode_lq(inputs.latent, side, side)

        def ours(kernels: bool, attend) -> Tensor:
            with fused.kernels(kernels):
                self.ours.attention = attend
                return inputs.ours(self.ours, features)

        def theirs(attend) -> Tensor:
            self.core.use(attend)
            return inputs.core(self.theirs, DTYPE)

        def core_fastest(q, k, v, heads, skip_output_reshape=False, **_):
            out = attention.fastest_sdpa(q, k, v)
            return out if skip_output_reshape else out.transpose(1, 2).flatten(2)

        return {
            "core": lambda: theirs(self.core.attentions["default"]),
            "core, our attention": lambda: theirs(core_fastest),
            "ours, plain, core's attention": lambda: ours(False, by_flash),
            "ours, core's attention": lambda: ours(True, by_flash),
            "ours": lambda: ours(True, attention.fastest_sdpa),
            "LQ trunk": lambda: self.ours.encode_lq(inputs.latent, side, side),
        }

    def planned(self, side: int, window: int, overlap: int) -> tuple[str, Callable[[], Tensor]]:
        inputs = Inputs(self.config, side, side, "cuda")
        features = self.ours.encode_lq(inputs.latent, side, side)
        plan = plan_windows(side, side, window, overlap, align=self.config.latent_cell)
        t = torch.tensor(T, device="cuda")
        arguments = inputs.x, t, inputs.caption, features, inputs.sigma

        def run() -> Tensor:
            self.ours.attention = attention.fastest_sdpa
            return predict_x0_by_windows(self.ours, *arguments, run=WindowRun(plan))

        return f"ours, {plan.count} windows of {plan.size[1]}", run


def report_steps(
    rates: Rates, config: PiDConfig, pair: Pair, side: int, only: list[str] | None = None, turns: int = 5
) -> str:
    runs = pair.runs(side)
    if only:
        runs = {name: run for name, run in runs.items() if name in only}
    elif side >= 4096:
        runs |= dict([pair.planned(side, 2304, 256), pair.planned(side, 2048, 256)])
    times = milliseconds(runs, turns)
    peaks = {name: peak(run) for name, run in runs.items()}
    work = forward_work(config, side, side)
    floor = sum(work) / rates.flops * 1e3
    rows, lq = [], times.pop("LQ trunk", 0.0)
    for name, taken in times.items():
        decode = 4 * taken + (lq if name.startswith("ours") else 0)
        rows.append(
            {
                f"{side} x {side}": name,
                "step, ms": f"{taken:.1f}",
                "4 steps, ms": f"{decode:.0f}",
                "speed against core": f"{4 * times['core'] / decode:.2f}" if "core" in times else "",
                "step / floor": f"{taken / floor:.2f}",
                "peak, GB": f"{peaks[name]:.2f}",
            }
        )
    return f"{table(rows)}\n\nLQ trunk {lq:.1f} ms; floor (FLOP over the product's rate) {floor:.1f} ms"


def report_distance(pair: Pair, side: int) -> str:
    """How far outputs are from ours in float32, plain."""
    inputs = Inputs(pair.config, side, side, "cuda")
    outputs = {name: run().float() for name, run in pair.runs(side).items() if name != "LQ trunk"}
    with pair.ours.in_float32(), fused.kernels(False):
        features = pair.ours.encode_lq(inputs.latent, side, side)
        exact = inputs.ours(pair.ours, features)
        with fused.kernels(True):
            outputs["ours, float32, kernels"] = inputs.ours(pair.ours, features)
    size = exact.square().mean().sqrt()
    rows = [
        {
            f"{side} x {side}, against ours in float32": name,
            "largest": f"{(out - exact).abs().max():.2e}",
            "rms": f"{(out - exact).square().mean().sqrt():.2e}",
            "rms of the values": f"{size:.2f}",
        }
        for name, out in outputs.items()
    ]
    return table(rows)


class TooLongError(BaseException):
    """No Exception: a compiler would take it for a failure of its own."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_):
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


COMPILED = {
    "blocks, kernels in the graph": lambda: Compiled("blocks", kernels=True),
    "blocks, plain definitions": lambda: Compiled("blocks", kernels=False),
    "whole, kernels in the graph": lambda: Compiled("whole", kernels=True),
    "whole, plain definitions": lambda: Compiled("whole", kernels=False),
    "whole, kernels, CUDA graphs": lambda: Compiled("whole", kernels=True, mode="reduce-overhead"),
}


def print_compiled(pair: Pair, side: int, limit: int, rows: list[int]) -> None:
    """A row as soon as it is known: each way of compiling, beside the uncompiled call in turns with it.

    Seconds are those of the first call; a size that was compiled before finds parts in PyTorch's caches.
    """
    net, inputs = pair.ours, Inputs(pair.config, side, side, "cuda")
    features = net.encode_lq(inputs.latent, side, side)

    def call(compiled: Compiled | None) -> Tensor:
        net.attention, net.driver.compiled = attention.attend, compiled
        try:
            return inputs.ours(net, features)
        finally:
            net.driver.compiled = None

    def host(run: Callable[[], object]) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - begin)

    def row(name: str, first: float, run: Callable[[], Tensor]) -> None:
        times = milliseconds({"not compiled": lambda: call(None), name: run}, turns=3)
        off = (run().float() - expected).square().mean().sqrt()
        cells = {
            f"{side} x {side}": name,
            "first call, s": f"{first:.1f}",
            "step, ms": f"{times[name]:.2f}",
            "not compiled, ms": f"{times['not compiled']:.2f}",
            "host, ms": f"{min(host(run) for _ in range(3)):.2f}",
            "peak, GB": f"{peak(run):.2f}",
            "rms from not compiled": f"{off:.1e}",
        }
        print("| " + " | ".join(f"{key} {value}" for key, value in cells.items()) + " |", flush=True)

    begin = time.perf_counter()
    expected = call(None).float()
    torch.cuda.synchronize()
    row("not compiled, kernels", time.perf_counter() - begin, lambda: call(None))
    for number in rows:
        name, make = list(COMPILED.items())[number]
        torch._dynamo.reset()
        begin = time.perf_counter()
        try:
            with time_limit(limit):
                compiled = make()
                call(compiled)
                torch.cuda.synchronize()
                first = time.perf_counter() - begin
                if compiled.why_not:
                    print(f"{side}, {name}: {compiled.why_not}", flush=True)
                    continue
                row(name, first, lambda compiled=compiled: call(compiled))
        except TooLongError:
            print(f"{side}, {name}: not done after {time.perf_counter() - begin:.0f} s", flush=True)
        except Exception as error:  # the other rows are still wanted
            print(f"{side}, {name}: {type(error).__name__}: {str(error)[:600]}", flush=True)
    begin, graph = time.perf_counter(), torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            out = call(None)
        row("not compiled, captured as a CUDA graph", time.perf_counter() - begin, lambda: graph.replay() or out)
    except RuntimeError as error:
        print(f"{side}, captured: {str(error)[:600]}", flush=True)


def report_profile(pair: Pair, side: int) -> str:
    """Where the card's time of one step of ours goes, and the host's."""
    from torch.profiler import ProfilerActivity, profile

    run = pair.runs(side)["ours"]
    run()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize()
    return found.key_averages().table(sort_by="self_cuda_time_total", row_limit=28, max_name_column_width=70)


def print_pair(parts: list[str], args: argparse.Namespace, rates: Rates, config: PiDConfig) -> None:
    """The parts that run both networks."""
    pair = Pair(config, Core("cuda"))
    if "distance" in parts:
        print(f"\n{report_distance(pair, args.sides[0])}", flush=True)
    if "steps" in parts:
        for side in args.sides:
            print(f"\n{report_steps(rates, config, pair, side)}", flush=True)
        for side in args.full:
            print(f"\n{report_steps(rates, config, pair, side, turns=1)}", flush=True)
    if "compile" in parts:
        for side in args.sides:
            print_compiled(pair, side, args.limit, args.ways)
    if "profile" in parts:
        print(report_profile(pair, args.sides[-1]), flush=True)
    print("\n" + "\n".join(attention.chosen_kernels()))


@torch.inference_mode()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--version", choices=("v1", "v1.5"), default="v1.5")
    parser.add_argument("--sides", type=int, nargs="*", default=[1024, 2048])
    parser.add_argument("--full", type=int, nargs="*", default=[], help="sides measured with fewer rows and turns")
    parser.add_argument("--only", nargs="*", choices=PARTS)
    parser.add_argument("--limit", type=int, default=120, help="seconds for one way of compiling")
    parser.add_argument("--ways", type=int, nargs="*", default=list(range(len(COMPILED))), help="which, by number")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs an NVIDIA card", file=sys.stderr)
        return 1
    parts = args.only or ["attention", "kernels", "distance", "steps"]
    config, rates = full_size_config(args.version), Rates()
    print(rates.describe(), flush=True)
    if "attention" in parts:
        print(f"\n{report_attention(rates, config)}", flush=True)
    if "kernels" in parts:
        print(f"\n{report_kernels(rates, config)}", flush=True)
    if "bits" in parts:
        for line in report_bits(config, args.sides, "cuda", lambda runs: milliseconds(runs, turns=3)):
            print(line, flush=True)
    if {"steps", "distance", "profile", "compile"} & set(parts):
        print_pair(parts, args, rates, config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
