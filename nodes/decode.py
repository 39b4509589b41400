"""PiD Decode: a latent straight to an image, in place of VAE Decode."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from comfy_api.latest import io
from torch import Tensor

from ..pid_core import distilled_sigmas
from ..pid_core.rgb import to_image
from .conditioning import (
    Conditioned,
    condition,
    describe,
    latent_format_input,
    latent_noise_input,
    sigma_input,
    sigma_list_input,
)
from .sampling import UndistilledSampling
from .show import show_on_node
from .text_encoder import encode_caption


class PiDKitDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitDecode",
            display_name="PiD Decode",
            category="PiD",
            description="Decodes a latent to an image four times the size VAE Decode would give. The same as PiD "
            "Conditioning, KSampler (lcm, simple, cfg 1) and VAE Decode, in one node.",
            search_aliases=["pid", "vae decode", "pixel diffusion decoder", "upscale", "super resolution"],
            inputs=[
                io.Model.Input("model", tooltip="A PiD model, from PiD Loader."),
                io.Latent.Input(
                    "latent", tooltip="The latent to decode: from a sampler, VAE Encode or PiD RGB Latent."
                ),
                sigma_input(),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=4,
                    tooltip="1 to 4 steps, 4 by default. Fewer steps are faster and smoother.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Seed of all noise: that of the image, and that added to the latent.",
                ),
                latent_format_input(optional=True),
                latent_noise_input(optional=True),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="The text: CLIP Text Encode with PiD's encoder (CLIPLoader, type pixeldit). Not "
                    "needed with clip, or with a model that brings its own caption, such as pid_nano.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="PiD's text encoder (CLIPLoader, type pixeldit), to encode the text below here.",
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the picture shows. Used with clip; may stay empty.",
                ),
                sigma_list_input(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The decoded images.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        latent: dict,
        degrade_sigma: float,
        steps: int,
        seed: int,
        latent_format: str = "auto",
        latent_noise: str = "add",
        positive: list | None = None,
        clip=None,
        text: str = "",
        sigma_list: list | float | None = None,
    ) -> io.NodeOutput:
        _check_student(model)
        made = condition(
            latent,
            model,
            latent_format=latent_format,
            sigma=degrade_sigma if sigma_list is None else sigma_list,
            add_noise=latent_noise == "add",
            seed=seed,
            positive=_caption(positive, clip, text),
        )
        lines = describe(made.lq)
        show_on_node(cls, *lines)
        pixels = sample(model, made, steps, seed)
        repeated = getattr(model.model.diffusion_model, "repeated", [])
        if repeated:
            lines.append(f"repeated in float32, because it gave NaN: {'; '.join(repeated)}")
        show_on_node(cls, *lines)
        return io.NodeOutput(to_image(pixels))


def _check_student(model) -> None:
    if isinstance(model.get_model_object("model_sampling"), UndistilledSampling):
        raise ValueError(
            "this checkpoint is undistilled, and PiD Decode runs the distilled ones' 4 steps: use PiD Conditioning and "
            "KSampler (dpmpp_2m, simple, 25 steps, cfg 5), or set schedule to distilled on PiD Loader if that is wrong"
        )


def sample(model, made: Conditioned, steps: int, seed: int) -> Tensor:
    """Run the distilled student on the canvas, as KSampler with lcm, simple and cfg 1 does: [B, 3, H, W], not clamped.

    Progress, previews and interruption are ComfyUI's own.
    """
    canvas = made.canvas["samples"]
    return comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(canvas, seed),
        1.0,
        comfy.samplers.sampler_object("lcm"),
        distilled_sigmas(steps),
        made.positive,
        made.negative,
        canvas,
        callback=latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )


def _caption(positive: list | None, clip, text: str) -> list | None:
    """The conditioning of the text, or None where nothing is connected."""
    if clip is None:
        if text.strip() and positive is None:
            raise ValueError("text is set, but clip is not connected: connect CLIPLoader (type pixeldit), or empty it")
        return positive
    if positive is not None:
        raise ValueError("both positive and clip are connected: positive is a text already, take one of them away")
    return encode_caption(clip, text)[0]
