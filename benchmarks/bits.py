"""A step of the network with its weights in 8 bits beside bfloat16, as ComfyUI runs them from converted files."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pid_core import PiDConfig
from pid_core.checkpoints.convert import convert
from pid_core.checkpoints.packing import PACKED

from .in_comfyui import comfyui, write_files

SIGMA, DEGRADE = 0.866, 0.1


class Step:
    """One step's inputs, the same for every file."""

    def __init__(self, config: PiDConfig, side: int, device: str):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(1, *shape, generator=generator).to(device)

        cells = side // config.latent_cell
        self.x, self.latent = draw(3, side, side), draw(config.latent_channels, cells, cells)
        self.caption = draw(config.caption_length, config.caption_width)
        self.t, self.degrade = torch.tensor([SIGMA], device=device), torch.tensor([DEGRADE], device=device)

    def run(self, model) -> Tensor:
        return model.apply_model(
            self.x, self.t, c_crossattn=self.caption, lq_latent=self.latent, degrade_sigma=self.degrade
        )


def how(form: str | None, management) -> str:
    """How this device multiplies with such weights."""
    device = management.get_torch_device()
    if form == "fp8" and not management.supports_fp8_compute(device):
        return "unpacked for each product"
    if form == "mxfp8" and not management.supports_mxfp8_compute(device):
        return "unpacked for each product: its products need a Blackwell card"
    return "bfloat16" if form is None else "8 bits"


def report_bits(
    config: PiDConfig, sides: list[int], device: str, timed: Callable[[dict], dict[str, float]]
) -> Iterator[str]:
    """A table's lines, each as soon as it is measured. timed: milliseconds of each run, by name."""
    pack = comfyui(device).__name__
    management = importlib.import_module("comfy.model_management")
    kitchen = importlib.import_module("comfy_kitchen")
    load = importlib.import_module(f"{pack}.nodes.comfy.model").load_model
    backends = kitchen.list_backends()
    yield "comfy-kitchen's kernels: " + ", ".join(
        name for name, found in backends.items() if found.get("available", True) and not found.get("disabled")
    )
    yield "| weights | products | side | file, GB | step, ms | speed | rms off | of rms |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    known, plain, base = importlib.import_module("comfy.quant_ops").QUANT_ALGOS, {}, {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        source = write_files(Path(folder), config, device, ("nvidia",))["nvidia"]
        for form in (None, *(form for form in PACKED if PACKED[form].name in known)):
            path = source
            if form is not None:
                path, _ = convert(source, Path(folder) / f"{form}.safetensors", family="flux", to=form)
            patcher = load(str(path))
            management.load_models_gpu([patcher], force_full_load=True)
            patcher.pre_run()
            for side in sides:
                step = Step(config, side, device)
                out = step.run(patcher.model).float().cpu()
                taken = timed({"step": partial(step.run, patcher.model)})["step"]
                plain.setdefault(side, out), base.setdefault(side, taken)
                off, size = ((t.square().mean().sqrt()) for t in (out - plain[side], plain[side]))
                yield (
                    f"| {form or 'bfloat16'} | {how(form, management)} | {side} | {path.stat().st_size / 1e9:.2f} | "
                    f"{taken:.2f} | {base[side] / taken:.2f} | {off:.2e} | {size:.2f} |"
                )
            patcher.cleanup()
            del patcher
            management.unload_all_models()
            management.soft_empty_cache()
            if form is not None:
                path.unlink()
