"""PiD Save Latent: a latent with its family and noise level as a file."""

from __future__ import annotations

import json

from comfy.cli_args import args
from comfy_api.latest import io

from ..pid_core.latents.families import families_with
from ..pid_core.latents.files import SavedLatent, latent_bytes
from ..pid_core.latents.lq_input import SAME_SIGMA
from .comfy.latent_tags import FAMILY, NOISE, read_tag
from .comfy.node_text import show_on_node
from .comfy.picture_size import picture_size
from .shared.files import LATENTS, save_new
from .shared.inputs import latent_formats, undetectable


class PiDKitSaveLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        channels, names = undetectable()
        return io.Schema(
            node_id="PiDKitSaveLatent",
            display_name="PiD Save Latent",
            category="PiD/files",
            description="Writes a latent to a file with its family and noise level, to decode it later with PiD. "
            "ComfyUI's own Load Latent reads it too.",
            search_aliases=["save latent", "export latent"],
            is_output_node=True,
            inputs=[
                io.Latent.Input("latent", tooltip="From a sampler, VAE Encode or PiD RGB Latent."),
                io.Combo.Input(
                    "latent_format",
                    options=latent_formats(),
                    default="auto",
                    tooltip="Whose VAE made the latent, as in PiD Latent Conditioning. auto: what is known of it, or "
                    f"what the channels tell; {channels} channels tell nothing: choose {names}.",
                ),
                io.Float.Input(
                    "degrade_sigma",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The noise level that the latent carries: 0 for a finished one, or for one from PiD "
                    "Latent From Noisy, which knows its own.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default=f"{LATENTS.folder}/PiD",
                    tooltip=f"Name in ComfyUI's output folder; a number is added. PiD Load Latent lists what is in "
                    f"output/{LATENTS.folder}.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, latent: dict, latent_format: str, degrade_sigma: float, filename_prefix: str) -> io.NodeOutput:
        samples = latent["samples"]
        family, sigma = _known(latent, latent_format, degrade_sigma)
        size, changed = picture_size(latent)
        content = latent_bytes(SavedLatent(samples, family, sigma, size and size[:2]), cls._workflow())
        entry = save_new(filename_prefix, LATENTS, content)
        show_on_node(cls, f"{family or 'family not known'}, degrade_sigma {sigma:g}", changed or "")
        return io.NodeOutput(ui={"latents": [entry]})

    @classmethod
    def _workflow(cls) -> dict[str, str]:
        """What ComfyUI's SaveLatent writes beside."""
        if args.disable_metadata or cls.hidden is None:
            return {}
        entries = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
        return {name: json.dumps(entry) for name, entry in entries.items() if entry is not None}


def _known(latent: dict, latent_format: str, sigma: float) -> tuple[str | None, float]:
    """Family and noise level: what the node's inputs say, else what the latent says of itself, else its channels."""
    carried = read_tag(latent, NOISE)
    if carried is not None:
        if sigma > 0 and abs(sigma - carried.sigma) > SAME_SIGMA:
            raise ValueError(
                f"degrade_sigma is {sigma:g}, but the latent was stopped early at {carried.sigma:.3g}: connect "
                "degrade_sigma of PiD Early Stop, or leave it at 0"
            )
        sigma = carried.sigma
    if latent_format != "auto":
        return latent_format, sigma
    if carried is not None:
        return carried.family, sigma
    rows = families_with(latent["samples"].shape[1])
    return read_tag(latent, FAMILY) or (rows[0].name if len(rows) == 1 else None), sigma
