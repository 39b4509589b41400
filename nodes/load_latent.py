"""PiD Load Latent: a latent's file, to decode it later, with what is known of it."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..pid_core.latents.early_stop import CarriedNoise
from ..pid_core.latents.files import read_latent
from ..pid_core.latents.lq_input import LATENT_NOISE
from .comfy.latent_tags import FAMILY, NOISE, SIZE, tagged
from .comfy.node_text import show_on_node
from .comfy.picture_size import PictureSize
from .shared.files import LATENTS, file_stamp, listed_files, resolve_file
from .shared.inputs import latent_formats


class PiDKitLoadLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitLoadLatent",
            display_name="PiD Load Latent",
            category="PiD/files",
            description="Reads a latent that PiD Save Latent or ComfyUI's Save Latent wrote, and tells what is known "
            "of it. Connect the other outputs to the inputs of the same name.",
            search_aliases=["load latent", "import latent"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=listed_files(LATENTS),
                    tooltip=f"A .latent file in output/{LATENTS.folder} or in the input folder. Press R to refresh the "
                    "list.",
                )
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="For PiD Latent Conditioning, PiD Decode or VAE Decode."
                ),
                io.Combo.Output(
                    display_name="latent_format",
                    options=latent_formats(),
                    tooltip="Its family, auto where it is not known. For the input of that name.",
                ),
                io.Float.Output(display_name="degrade_sigma", tooltip="The noise level it carries."),
                io.Combo.Output(
                    display_name="latent_noise",
                    options=list(LATENT_NOISE),
                    tooltip="keep where the latent carries noise, so that none is added again; else add.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        saved = read_latent(Path(resolve_file(file)))
        show_on_node(cls, f"{saved.family or 'family not known'}, degrade_sigma {saved.sigma:g}")
        carried = None
        if saved.family is not None and saved.sigma > 0:
            carried = CarriedNoise(saved.family, saved.sigma)
        tags = {
            FAMILY: saved.family,
            NOISE: carried,
            SIZE: saved.size and PictureSize(*saved.size),
        }
        latent = tagged({"samples": saved.samples}, **tags)
        noise = "keep" if saved.sigma > 0 else "add"
        return io.NodeOutput(latent, saved.family or "auto", saved.sigma, noise)

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> tuple | None:
        return file_stamp(file)
