"""Our network beside ComfyUI core's PidNet on a CPU: same random full-size weights and inputs, taking turns.

    python -m benchmarks.compare_core --version v1.5 --side 1024 --dtype bfloat16 --rounds 3
    python -m benchmarks.compare_core --version v1 --side 512 --distance
    python -m benchmarks.compare_core --version v1.5 --side 2048 --rounds 1 --window 1152 --overlap 256
    python -m benchmarks.compare_core --memory

Needs ComfyUI where `make setup` puts it. Prints Markdown tables. A 4-step decode is four steps; core runs its LQ
projector in each of them, ours once. Core's attention is measured as ComfyUI picks it and with PyTorch's SDPA; ratios
are against the faster. Memory is the sum of all tensors alive above weights and inputs, counted on the meta device
with attention as one allocation, so it leaves out what kernels take for themselves.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pid_bridges.core_network import split_modulation
from pid_core import PiDConfig, PiDNetwork
from pid_core.model.attention import attend
from pid_core.model.chunks import chunk_bytes
from pid_core.model.cost import forward_work
from pid_core.sampling.predict import predict_x0_by_windows
from pid_core.windows.plan import WindowPlan, plan_windows
from pid_core.windows.run import WindowRun

from .live_bytes import LiveBytes
from .synthetic import file_tensors, full_size_config

T, SIGMA = 0.866, 0.1


# Both networks


def random_state(config: PiDConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """NVIDIA's names without their prefix."""
    return {name.removeprefix("net."): value.to(dtype) for name, value in file_tensors(config)}


def in_core_layout(state: dict[str, Tensor], config: PiDConfig) -> dict[str, Tensor]:
    """Core's names: it splits the pixel blocks' modulation into attention's half and the MLP's."""
    width = config.pixel_hidden_size
    return dict(pair for name, value in state.items() for pair in split_modulation(name, value, width))


def our_network(state: dict[str, Tensor], config: PiDConfig, dtype: torch.dtype, operations=nn) -> PiDNetwork:
    net = PiDNetwork(config, dtype=dtype, device="meta", operations=operations).eval().requires_grad_(False)
    own = net.state_dict()
    net.load_state_dict({name: state[name].to(own[name].dtype) for name in own}, strict=True, assign=True)
    return net


class Core:
    """ComfyUI's modules, imported once. `attention`: "default" is what it picks on this machine, "sdpa" PyTorch's."""

    def __init__(self, device: str):
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
        import comfy_env

        sys.path.insert(0, str(comfy_env.find_comfyui()[0]))
        from comfy.cli_args import args

        args.cpu = device != "cuda"
        import comfy.ldm.pixeldit.model as model
        import comfy.ldm.pixeldit.modules as modules
        import comfy.model_detection
        import comfy.ops
        from comfy.ldm.modules import attention
        from comfy.ldm.pixeldit.pid import PidNet

        self._modules, self._detect, self._net = (model, modules), comfy.model_detection, PidNet
        self.operations = comfy.ops.disable_weight_init
        self.attentions = {"default": attention.optimized_attention, "sdpa": attention.attention_pytorch}
        self.default_name = attention.optimized_attention.__name__

    def use(self, attention) -> None:
        for module in self._modules:
            module.optimized_attention = attention

    def network(self, state: dict[str, Tensor], dtype: torch.dtype):
        """Configured by core's own detection from the tensors."""
        config = self._detect.detect_unet_config(state, "")
        net = self._net(**config, dtype=dtype, device="meta", operations=self.operations).eval()
        net.load_state_dict(state, strict=True, assign=True)
        return net.requires_grad_(False)


class Inputs:
    """One image's worth of random inputs, float32."""

    def __init__(self, config: PiDConfig, height: int, width: int, device: str):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(1, *shape, generator=generator).to(device)

        cell = config.latent_cell
        self.x, self.latent = draw(3, height, width), draw(config.latent_channels, height // cell, width // cell)
        self.caption = draw(config.caption_length, config.caption_width)
        self.t, self.sigma = torch.tensor([1000 * T], device=device), torch.tensor([SIGMA], device=device)

    def core(self, net, dtype: torch.dtype, rows: slice = slice(None), cell: int = 1) -> Tensor:
        """Core's call; rows: a strip of the image."""
        under = slice(None) if rows.start is None else slice(rows.start // cell, rows.stop // cell)
        options = {"lq_latent": self.latent[:, :, under], "degrade_sigma": self.sigma}
        return net(self.x[:, :, rows].to(dtype), self.t, context=self.caption.to(dtype), **options)

    def ours(self, net: PiDNetwork, features: Tensor) -> Tensor:
        return net(self.x, self.t, self.caption, lq_features=features, degrade_sigma=self.sigma)


# Measuring


def seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def best_of_turns(runs: dict, rounds: int, warm_up: bool) -> dict[str, float]:
    """The least time of each, all of them once per round, so that a busy machine slows them alike."""
    times = {name: [] for name in runs}
    for turn in range(rounds + warm_up):
        for name, run in runs.items():
            taken = seconds(run)
            if turn >= warm_up:
                times[name].append(taken)
    return {name: min(values) for name, values in times.items()}


def rate_runs(config: PiDConfig, side: int, dtype: torch.dtype) -> tuple[dict, dict]:
    """Runs, and their FLOP, of the two things the floor is made of: a linear layer, and attention at this size."""
    tokens = (side // config.patch_size) ** 2
    x, w = (torch.randn(n, config.hidden_size, dtype=dtype) for n in (4096, 3 * config.hidden_size))
    shape = (1, config.num_heads, tokens + config.caption_length, config.head_dim)
    q, k, v = (torch.randn(shape, dtype=dtype) for _ in range(3))
    runs = {
        "a linear layer": lambda: F.linear(x, w),
        "SDPA": lambda: F.scaled_dot_product_attention(q, k, v),
        "our attention": lambda: attend(q, k, v),
    }
    attention = 4 * q.numel() * q.shape[2]
    return runs, dict(zip(runs, (2 * x.numel() * len(w), attention, attention), strict=True))


# Reports


def table(rows: list[dict]) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows])


@torch.inference_mode()
def report_speed(args, core: Core) -> str:
    dtype, side = getattr(torch, args.dtype), args.side
    config = full_size_config(args.version)
    state = random_state(config, dtype)
    ours, theirs = our_network(state, config, dtype), core.network(in_core_layout(state, config), dtype)
    inputs = Inputs(config, side, side, "cpu")
    features = ours.encode_lq(inputs.latent, side, side)

    def core_step(attention: str, rows: slice = slice(None)) -> None:
        core.use(core.attentions[attention])
        inputs.core(theirs, dtype, rows, config.latent_cell)

    runs = {"ours": lambda: inputs.ours(ours, features), "core, SDPA": lambda: core_step("sdpa")}
    if args.default_attention:
        runs[f"core, {core.default_name}"] = lambda: core_step("default")
    runs["LQ trunk"] = lambda: ours.encode_lq(inputs.latent, side, side)
    counts = dict.fromkeys(runs, 1)
    if args.window:
        plan = plan_windows(side, side, args.window, args.overlap, align=config.latent_cell)
        runs[name := f"ours, {plan.count} windows of {plan.size[1]}"] = by_plan(ours, inputs, features, plan)
        counts[name] = 1
        for strips in (2, 3, 4):
            height = -(-(side + (strips - 1) * args.overlap) // strips // config.latent_cell) * config.latent_cell
            name = f"core, {strips} strips of {height}"
            runs[name] = lambda rows=slice(0, height): core_step("sdpa", rows)
            counts[name] = strips  # all are of one size: one is timed
    rates, flop = rate_runs(config, side, dtype)
    times = best_of_turns(runs | rates, args.rounds, not args.cold)
    speed = {name: flop[name] / times[name] for name in flop}
    work = forward_work(config, side, side)
    floors = {
        name: work.linear / speed["a linear layer"] + work.attention / speed[name] for name in ("SDPA", "our attention")
    }

    lq, rows = times.pop("LQ trunk"), []
    steps = {name: times[name] * counts[name] for name in runs if name in times}
    decodes = {name: 4 * step + (lq if name.startswith("ours") else 0) for name, step in steps.items()}
    fastest = min(decodes[name] for name in decodes if name.startswith("core") and "strips" not in name)
    for name, step in steps.items():
        rows.append(
            {
                f"{args.version}, {side} x {side}, {args.dtype}": name,
                "step, s": f"{step:.2f}",
                "4 steps, s": f"{decodes[name]:.2f}",
                "speed against core's full frame": f"{fastest / decodes[name]:.2f}",
                "step / floor": f"{step / floors['SDPA']:.2f}",
            }
        )
    rate = {name: f"{value / 1e9:.0f}" for name, value in speed.items()}
    notes = (
        f"LQ trunk {lq:.2f} s. GFLOP/s: a linear layer {rate['a linear layer']}, SDPA {rate['SDPA']}, our attention "
        f"{rate['our attention']}. Floor of the full frame: {floors['SDPA']:.2f} s a step with SDPA, "
        f"{floors['our attention']:.2f} s with our attention."
    )
    return f"{table(rows)}\n\n{notes}"


def by_plan(net: PiDNetwork, inputs: Inputs, features: Tensor, plan: WindowPlan):
    t = torch.tensor(T, device=inputs.x.device)
    arguments = inputs.x, t, inputs.caption, features, inputs.sigma
    return lambda: predict_x0_by_windows(net, *arguments, run=WindowRun(plan))


@torch.inference_mode()
def report_distance(args, core: Core) -> str:
    """How far the outputs are from core's in float32."""
    config, outputs = full_size_config(args.version), {}
    inputs = Inputs(config, args.side, args.side, "cpu")
    state = random_state(config, torch.bfloat16)
    core.use(core.attentions["sdpa"])
    for dtype in (torch.float32, torch.bfloat16):
        cast = {name: value.to(dtype) for name, value in state.items()}
        net = our_network(cast, config, dtype)
        outputs["ours", dtype] = inputs.ours(net, net.encode_lq(inputs.latent, args.side, args.side)).float()
        net = core.network(in_core_layout(cast, config), dtype)
        outputs["core", dtype] = inputs.core(net, dtype).float()
        del net, cast
    exact = outputs["core", torch.float32]
    rows = []
    for (name, dtype), output in outputs.items():
        off = (output - exact).abs()
        title = f"{args.version}, {args.side} x {args.side}, against core in float32"
        rms = off.square().mean().sqrt()
        rows.append({title: f"{name}, {dtype}", "largest": f"{off.max():.2e}", "rms": f"{rms:.2e}"})
    return table(rows)


@torch.no_grad()
def report_memory(args, core: Core) -> str:
    rows = []
    for version in ("v1", "v1.5"):
        config = full_size_config(version)
        meta = {name: value.to("meta") for name, value in PiDNetwork(config, device="meta").state_dict().items()}
        for dtype in (torch.bfloat16, torch.float32):
            state = {name: value.to(dtype) for name, value in meta.items()}
            ours, theirs = our_network(state, config, dtype), core.network(in_core_layout(state, config), dtype)
            for side in (512, 1024, 2048):
                peaks = [count_ours(ours, config, side), count_core(core, theirs, config, side, dtype)]
                kind = f"{version}, {side} x {side}, {str(dtype).removeprefix('torch.')}"
                mega = {name: f"{peak / 1e6:.0f}" for name, peak in zip(("ours, MB", "core, MB"), peaks, strict=True)}
                rows.append({"peak above weights": kind, **mega, "ours / core": f"{peaks[0] / peaks[1]:.2f}"})
    return table(rows)


def count_ours(net: PiDNetwork, config: PiDConfig, side: int) -> int:
    """The LQ features count, though they are made before."""
    inputs, net.driver.chunk_bytes = Inputs(config, side, side, "meta"), chunk_bytes("cpu")
    tokens = (side // config.patch_size) ** 2
    features = torch.empty(1, tokens, config.lq_width, dtype=net.compute_dtype, device="meta")
    net.attention = lambda q, k, v: torch.empty_like(q)
    inputs.ours(net, features)  # makes the position tables
    live = LiveBytes([*net.parameters(), *vars(inputs).values(), features])
    with live:
        inputs.ours(net, features)
    return live.peak + features.nbytes + 4 * tokens * (config.head_dim + config.pixel_head_dim)


def count_core(core: Core, net, config: PiDConfig, side: int, dtype: torch.dtype) -> int:
    def attention(q, k, v, heads, skip_output_reshape=False, **_):
        return torch.empty_like(q) if skip_output_reshape else torch.empty_like(q.transpose(1, 2).flatten(2))

    core.use(attention)
    inputs = Inputs(config, side, side, "meta")
    live = LiveBytes([*net.parameters(), *vars(inputs).values()])
    with live:
        inputs.core(net, dtype)
    return live.peak


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_core", description=__doc__.splitlines()[0])
    parser.add_argument("--version", choices=("v1", "v1.5"), default="v1.5")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="no warm-up round, where one step takes minutes")
    parser.add_argument("--window", type=int, help="also our plan of such windows, and core's strips")
    parser.add_argument("--overlap", type=int, default=256)
    parser.add_argument("--default-attention", action="store_true", help="also the attention core picks on a CPU: slow")
    parser.add_argument("--distance", action="store_true", help="outputs instead of times")
    parser.add_argument("--memory", action="store_true", help="memory instead of times, all sizes")
    args = parser.parse_args(argv)
    report = report_memory if args.memory else report_distance if args.distance else report_speed
    machine = f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"{machine}, PyTorch {torch.__version__}\n\n{report(args, Core('cpu'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
