"""PiD Prepare Image: a picture to the size a checkpoint was trained for."""

from __future__ import annotations

from collections import Counter

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..pid_core.images.framing import FITS, TARGETS, plan_framing, prepare_image
from ..pid_core.latents.families import LatentFamily, families, get_family
from ..pid_core.latents.rgb import to_rgb_latent
from ..pid_core.rae.facts import is_rae
from .comfy.node_text import show_on_node
from .shared.inputs import Framed, FramedPicture


class PiDKitPrepareImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = families()
        return io.Schema(
            node_id="PiDKitPrepareImage",
            display_name="PiD Prepare Image",
            category="PiD",
            description="Brings a picture to the size PiD upscales from, its aspect kept. Before VAE Encode; what is "
            "padded or cropped here, PiD Decode or PiD Finish Image undoes.",
            search_aliases=["resize", "upscale image", "2k", "4k", "pad", "crop"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The picture to upscale, of any size. A transparency channel is joined again at the end.",
                ),
                io.Combo.Input(
                    "target",
                    options=[*TARGETS, "factor"],
                    default="2K",
                    tooltip="Size of the result. 2K and 4K: the area of 2048 x 2048 or 4096 x 4096, which the "
                    "checkpoints were trained for, in the picture's own shape; with one square, what it fills of that. "
                    "factor: a multiple of the picture.",
                ),
                io.Combo.Input(
                    "family",
                    options=[row.name for row in rows],
                    default="flux",
                    tooltip="Whose VAE or encoder takes the picture; it must be the one the PiD file was made for. "
                    f"Decides what both sides must be multiples of: {_multiples(rows)}; or the one square: "
                    f"{_squares(rows)}.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default="pad",
                    advanced=True,
                    tooltip="How both sides become such multiples. pad: the edges are mirrored outwards, and cut off "
                    "at the end. crop: the edges are cut off, and filled at the end from the picture, plainly "
                    "enlarged.",
                ),
                io.Float.Input(
                    "factor",
                    default=4.0,
                    min=0.25,
                    max=16.0,
                    step=0.05,
                    optional=True,
                    tooltip="How many times as large the result is, with target factor, 0.25 to 16. At 4 the picture "
                    "is encoded as it is; below, it is made smaller first.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The family's VAE, for the output latent. Not needed for rgb, or with VAE Encode.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The picture to encode: for VAE Encode, PiD RGB Latent or PiD RAE Encode.",
                ),
                FramedPicture.Output(
                    display_name="framing",
                    tooltip="How the picture lies in it, for PiD Decode or PiD Finish Image.",
                ),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The picture encoded, for PiD Decode or PiD Latent Conditioning: by vae, or as PiD RGB "
                    "Latent does for rgb. Every picture of a batch on its own.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image: Tensor, target: str, family: str, fit: str, factor: float = 4.0, vae=None) -> io.NodeOutput:
        height, width = image.shape[1:3]
        framing = plan_framing(height, width, family, target=target, factor=factor, fit=fit)
        show_on_node(cls, framing.describe())
        prepared = prepare_image(image, framing)
        return io.NodeOutput(prepared, Framed(framing, image, prepared), _latent(prepared, family, vae))


def _multiples(rows: list[LatentFamily]) -> str:
    """ "16 for flux2, else 8": the most frequent one last."""
    rows = [row for row in rows if not row.square]
    usual, _ = Counter(row.down for row in rows).most_common(1)[0]
    return ", ".join([*(f"{row.down} for {row.name}" for row in rows if row.down != usual), f"else {usual}"])


def _squares(rows: list[LatentFamily]) -> str:
    return ", ".join(f"{row.square} x {row.square} for {row.name}" for row in rows if row.square)


def _latent(image: Tensor, family: str, vae) -> dict | ExecutionBlocker:
    """The LATENT of pictures that are whole cells already. Without what encodes them, an error for who wants it."""
    if family == "rgb":
        return {"samples": to_rgb_latent(image)}
    if is_rae(family):
        return ExecutionBlocker(f"{family} pictures are encoded by PiD RAE Encode: connect image there")
    if vae is None:
        return ExecutionBlocker(f"the latent of PiD Prepare Image needs the VAE of {family}: connect vae there")
    # one by one: VAEs for video take a batch for frames
    latent = torch.cat([vae.encode(image[i : i + 1]) for i in range(image.shape[0])])
    row = get_family(family)
    if latent.shape[1] != row.channels:
        raise ValueError(
            f"this VAE gives latents of {latent.shape[1]} channels, those of {family} have {row.channels}: load the "
            f"VAE of {family}, or set family to the one that the VAE and the PiD file are of"
        )
    return {"samples": latent}
