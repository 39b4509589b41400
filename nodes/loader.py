"""PiD Loader: a checkpoint file, or the bundled model, as a MODEL."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..pid_core import NANO_PATH
from ..pid_core.assets import BUNDLED
from ..pid_core.printable import printable
from ..pid_core.sampling.schedule import SCHEDULES
from ..pid_core.tensor_files import Stamp
from .comfy.compiled import OFF, compile_input
from .comfy.model import PiDKitModel, load_model
from .comfy.node_text import show_on_node
from .comfy.pid_models import describe_steps
from .shared.inputs import latent_formats, undetectable
from .shared.known_files import (
    MARK,
    fetch_options,
    generation,
    licence_input,
    marked_file,
    not_accepted,
    not_listed,
    obtain,
)

FOLDER = "diffusion_models"
DTYPES = {
    "auto": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8_e4m3fn": torch.float8_e4m3fn,
}


class PiDKitLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        channels, names = undetectable()
        return io.Schema(
            node_id="PiDKitLoader",
            display_name="PiD Loader",
            category="PiD",
            description="Loads a PiD pixel diffusion decoder (v1 or v1.5, .safetensors or NVIDIA's .pth), or PixelDiT. "
            "With KSampler: sampler lcm, scheduler simple, cfg 1 and 4 steps, or as many as this node shows, run the "
            "distilled checkpoints' schedule; dpmpp_2m, simple, 25 steps, cfg 5 the undistilled ones'.",
            search_aliases=["pid model", "pixel diffusion decoder", "load pid"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[BUNDLED, *folder_paths.get_filename_list(FOLDER), *fetch_options(FOLDER)],
                    default=BUNDLED,
                    tooltip="A PiD file in models/diffusion_models, or the small model that comes with this "
                    "pack, which enlarges an image four times (use it with PiD RGB Latent). Names after 'fetch:' are "
                    "fetched the first time they are used (2.8 GB each) and are then used from the disk.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="auto",
                    advanced=True,
                    tooltip="Precision of the weights. auto: bfloat16 where the device has it, float32 for "
                    "small models; a quantised file (fp8_scaled, mxfp8, int8) stays as it is. float8_e4m3fn: half the "
                    "memory of bfloat16, less exact. Noise levels and the image itself stay float32 in any case.",
                ),
                io.Combo.Input(
                    "family",
                    options=latent_formats(),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="The latents this checkpoint was made for. auto: what the file tells. Files for "
                    f"{channels}-channel latents tell it by their name at best: set {names} here and PiD "
                    "Latent Conditioning checks it.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=["auto", *SCHEDULES],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="The noise levels this checkpoint was trained at. distilled: the 4-step levels, cfg 1. "
                    "undistilled: 25 steps, cfg 5, levels that fit the canvas. auto: what the file or its name tells.",
                ),
                licence_input(),
                compile_input(),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For KSampler and for PiD Latent Conditioning.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model_name: str,
        dtype: str,
        family: str = "auto",
        schedule: str = "auto",
        accept_licence: bool = False,
        compile: str = OFF,
    ) -> io.NodeOutput:
        file = marked_file(model_name)
        path = _path(model_name if file is None else obtain(cls, [file], accept_licence)[0])
        if path is None:
            raise FileNotFoundError(_no_file(model_name))
        model = load_model(str(path), DTYPES[dtype], _told(family), _told(schedule), compile)
        show_on_node(cls, *_describe(model.model))
        return io.NodeOutput(model)

    @classmethod
    def validate_inputs(cls, model_name: str | None = None, accept_licence: bool | None = False) -> bool | str:
        if model_name is None:
            return True
        if not model_name.startswith(MARK):
            return True if _path(model_name) is not None else _no_file(model_name)
        problem = not_listed(cls, "model_name", model_name)
        if problem is not None:
            return problem
        file = marked_file(model_name)
        return (file and not_accepted([file], accept_licence)) or True

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None = None, **_) -> tuple | None:
        # a file that was replaced is loaded again; a name that comes by a link is not known yet
        if model_name is None:
            return None
        file = marked_file(model_name)
        if file is not None:
            return (generation(file),)
        path = _path(model_name)
        return None if path is None else Stamp.of(path)


def _told(choice: str) -> str | None:
    return None if choice == "auto" else choice


def _describe(model: PiDKitModel) -> list[str]:
    """What was loaded, and what was decided because the file does not tell."""
    config, dtype = model.config, str(model.get_dtype_inference()).removeprefix("torch.")
    if not config.has_latent:
        return [f"PixelDiT, draws from text, {dtype}"]
    latents = config.family or f"{config.latent_channels}-channel"
    steps = "1 to 4 steps" if config.schedule == "distilled" else "undistilled: about 25 steps with cfg 5"
    if config.schedule == "distilled" and config.steps < 4:
        steps += f", best in {describe_steps(config.steps)}"
    lines = [f"for {latents} latents, {steps}, {dtype}"]
    if config.family is None:
        lines.append(
            "the file does not tell whose latents it takes: set family, and PiD Latent Conditioning checks them"
        )
    if model.unpacked:
        lines.append(f"{model.unpacked} quantised layers were unpacked, because ComfyUI cannot run them as they are")
    return lines


def _no_file(model_name: str) -> str:
    if model_name == BUNDLED:
        return f"no such file: {model_name}; install this pack again"
    return (
        f"no such file: {printable(model_name)}; put it into models/{FOLDER} and press R, or choose another model_name"
    )


def _path(model_name: str | None) -> Path | None:
    if model_name is None:
        return None
    path = NANO_PATH if model_name == BUNDLED else folder_paths.get_full_path(FOLDER, model_name)
    return Path(path) if path is not None and Path(path).is_file() else None
