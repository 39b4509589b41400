"""Whole decodes inside the real ComfyUI on this machine's device: PiD Decode beside core's own PiD and KSampler.

    python -m benchmarks.in_comfyui --sides 2048 4096

Both load the same random full-size weights from files through ComfyUI's loaders, with its memory management switched
on as its main program does. Seconds are by the clock, from the latent to the image in memory: the first run, which
brings the weights to the device and tries kernels, and the fastest of the runs after it. Peak memory is the device's.
Core runs its own schedule (simple, 4 steps: 1, 0.818, 0.6, 0.333), which is not the reference's: the pictures differ.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from .compare_core import table
from .synthetic import full_size_config, in_file, network_tensors, scaled

SEED = 7


def comfyui(device: str):
    """ComfyUI's modules and the pack in this process, as main.py sets them up."""
    root = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(root / name) for name in ("scripts", "tests")]
    import comfy_env
    from support import inside

    sys.path.insert(0, str(comfy_env.find_comfyui()[0]))
    import comfy_aimdo.control
    from comfy.cli_args import args

    if device == "cuda":
        comfy_aimdo.control.init()
    pack = inside.load(cpu=device != "cuda")
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher

    if device == "cuda":
        devices = [(d.index, int(args.vram_headroom * 1024**3)) for d in comfy.model_management.get_all_torch_devices()]
        if comfy_aimdo.control.init_devices(devices):
            comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
            comfy.memory_management.aimdo_enabled = True
    print("dynamic VRAM:", comfy.memory_management.aimdo_enabled)
    return pack


def write_files(folder: Path, config, device: str, layouts=("nvidia", "comfyui")) -> dict[str, Path]:
    """The same random weights in NVIDIA's layout for ours and in ComfyUI's for core."""
    torch.manual_seed(0)
    state = {
        n: scaled(n, torch.randn(like.shape, device=device)).bfloat16().cpu() for n, like in network_tensors(config, 0)
    }
    paths = {}
    for layout in layouts:
        tensors = dict(pair for name, value in state.items() for pair in in_file(name, value, config, layout))
        paths[layout] = folder / f"{layout}.safetensors"
        save_file(tensors, paths[layout])
    return paths


def timed(run, device: str) -> tuple[float, torch.Tensor]:
    begin = time.perf_counter()
    out = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_comfyui", description=__doc__.splitlines()[0])
    parser.add_argument("--version", choices=("v1", "v1.5"), default="v1.5")
    parser.add_argument("--sides", type=int, nargs="*", default=[2048, 4096])
    parser.add_argument("--alone", type=int, nargs="*", default=[], help="sides that only PiD Decode draws, planned")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    args = parser.parse_args(argv)
    config, device = full_size_config(args.version), args.device
    pack = comfyui(device).__name__
    sd, sample = importlib.import_module("comfy.sd"), importlib.import_module("comfy.sample")
    utils = importlib.import_module("comfy.utils")
    nodes, model = (importlib.import_module(f"{pack}.{name}") for name in ("nodes", "nodes.comfy.model"))
    caption = [[torch.randn(1, config.caption_length, config.caption_width), {}]]
    utils.PROGRESS_BAR_ENABLED = False
    rows, images = [], {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths = write_files(Path(folder), config, device)
        ours = model.load_model(str(paths["nvidia"]))
        core = sd.load_diffusion_model_state_dict(utils.load_torch_file(str(paths["comfyui"])))

        def decode_ours(latent, window_mode):
            return nodes.PiDKitDecode.execute(
                ours, latent, 0.1, 4, SEED, "flux", "keep", window_mode, positive=caption
            ).args[0]

        def decode_core(latent):
            positive, negative, canvas = nodes.PiDKitConditioning.execute(
                latent=latent, latent_format="flux", degrade_sigma=0.1, latent_noise="keep", noise_seed=0,
                positive=caption, negative=None, model=ours,
            ).args  # fmt: skip
            pixels = canvas["samples"]
            noise = sample.prepare_noise(pixels, SEED)
            out = sample.sample(
                core, noise, 4, 1.0, "lcm", "simple", positive, negative, pixels, seed=SEED, disable_pbar=True
            )
            return ((out.movedim(1, -1) + 1) / 2).clamp(0, 1)

        for side in args.sides + args.alone:
            cells = side // config.latent_cell
            generator = torch.Generator().manual_seed(1)
            latent = {"samples": torch.randn(1, config.latent_channels, cells, cells, generator=generator)}
            runs = {
                "core, KSampler": lambda latent=latent: decode_core(latent),
                "PiD Decode, window_mode auto": lambda latent=latent: decode_ours(latent, "auto"),
                "PiD Decode, window_mode off": lambda latent=latent: decode_ours(latent, "off"),
            }
            if side in args.alone:
                runs = {"PiD Decode, window_mode auto": runs["PiD Decode, window_mode auto"]}
            base, fastest = next(iter(runs)), {}
            for name, run in runs.items():
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                first, images[name] = timed(run, device)
                fastest[name] = min(timed(run, device)[0] for _ in range(args.runs))
                peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0
                off = (images[name].float().cpu() - images[base].float().cpu()).square().mean().sqrt()
                rows.append(
                    {
                        f"{args.version}, 4 steps in ComfyUI": f"{side} x {side}: {name}",
                        "first run, s": f"{first:.2f}",
                        "after, s": f"{fastest[name]:.3f}",
                        "speed against core": f"{fastest[base] / fastest[name]:.2f}",
                        "peak torch memory, GB": f"{peak:.2f}",
                        "rms from core": f"{off:.4f}",
                    }
                )
                print(rows[-1], flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
