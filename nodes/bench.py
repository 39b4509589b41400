"""PiD Bench: what PiD does on this machine, measured in the running ComfyUI."""

from __future__ import annotations

import time

import torch
from comfy_api.latest import io
from torch import Tensor

from ..pid_core import NANO_PATH
from ..pid_core.images.files import Picture, read_picture
from ..pid_core.images.pixels import as_floats, with_colour
from ..pid_core.machine.example_pictures import FOLDER
from .comfy.model import load_model
from .comfy.node_text import show_on_node
from .shared.benching import bench_in_comfyui, check_own
from .shared.decoding import check_student

PHOTO = FOLDER / "pidkit_photo.png"
SIZES = ("auto", "512", "1024", "2048", "4096")


class PiDKitBench(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitBench",
            display_name="PiD Bench",
            category="PiD/files",
            description="Measures PiD on this machine: time of a step, memory beside what was expected, precision, "
            "ComfyUI's own network beside ours, seams and NaN. The table holds nothing private and can be pasted "
            "into an issue.",
            search_aliases=["benchmark", "speed", "measure", "memory", "report"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "size",
                    options=list(SIZES),
                    default="auto",
                    tooltip="Side of the square canvas, in pixels. auto: 2048, or a smaller one where that would "
                    "take long, as on a CPU. 4096 takes minutes on a small card.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="From PiD Loader. Without one the bundled model is measured.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Seams are looked for in it, where the model needs no VAE. Without one, in a photo that "
                    "comes with the pack.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="The table in Markdown, to paste or to save."),
                io.String.Output(display_name="json", tooltip="The same figures in JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> float:
        return time.monotonic()  # a run measures anew

    @classmethod
    def execute(cls, size: str = "auto", model=None, image: Tensor | None = None) -> io.NodeOutput:
        if model is None:
            model = load_model(str(NANO_PATH))
        check_own(model)
        check_student(model)
        sizes = None if size == "auto" else (int(size),)
        with torch.no_grad():
            report = bench_in_comfyui(model, sizes, _picture(image), lambda line: show_on_node(cls, line))
        rows = [f"{row.title}: {row.text}" for row in report.rows]
        show_on_node(cls, *rows)
        return io.NodeOutput(report.as_markdown(), report.as_json())


def _picture(image: Tensor | None) -> Picture:
    if image is None:
        return read_picture(PHOTO)
    return Picture(with_colour(as_floats(image[:1]))[0, ..., :3])
