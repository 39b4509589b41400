"""PiD Latent Conditioning: ties a latent and its noise level to the text, and makes the canvas."""

from __future__ import annotations

from comfy_api.latest import io

from ..pid_core.latents.sigma_map import SigmaMap
from .comfy.node_text import show_on_node
from .shared.frame_advice import frame_advice
from .shared.inputs import ABSENT, latent_format_input, latent_noise_input, sigma_input, sigma_list_input
from .shared.lq_conditioning import NO_TEXT, condition, describe


class PiDKitConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitConditioning",
            display_name="PiD Latent Conditioning",
            category="PiD/sampling",
            description="Gives PiD the latent to decode, and an empty canvas of the right size. "
            "Both conditionings carry the latent, so cfg other than 1 works too.",
            search_aliases=["pid conditioning", "lq latent", "degrade sigma", "pixel diffusion decoder"],
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The latent to decode: from a sampler, VAE Encode or PiD RGB Latent."
                ),
                latent_format_input(),
                sigma_input(),
                latent_noise_input(advanced=True),
                io.Int.Input(
                    "noise_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Seed of the noise added to the latent. Does nothing at degrade_sigma 0. "
                    "The sampler's own seed is another.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="The text: CLIP Text Encode with PiD's encoder (CLIPLoader, type pixeldit). Not "
                    "needed with a model that brings its own caption, such as pid_nano.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Only used with cfg above 1. Left open, it is the positive once more, and cfg "
                    "does nothing.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The PiD model. With it the latent is checked against the checkpoint, and its "
                    "scale and caption are known.",
                ),
                sigma_list_input(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="Positive text with the latent."),
                io.Conditioning.Output(display_name="negative", tooltip="Negative text with the latent."),
                io.Latent.Output(
                    display_name="canvas",
                    tooltip="Empty pixels of the output's size and batch, for latent_image.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, latent=None, positive=ABSENT, model=ABSENT) -> bool | str:
        return NO_TEXT if positive is ABSENT and model is ABSENT else True

    @classmethod
    def execute(
        cls,
        latent: dict,
        latent_format: str,
        degrade_sigma: float,
        latent_noise: str,
        noise_seed: int,
        positive: list | None = None,
        negative: list | None = None,
        model=None,
        sigma_list: list | float | SigmaMap | None = None,
    ) -> io.NodeOutput:
        conditioning = condition(
            latent,
            model,
            latent_format=latent_format,
            sigma=degrade_sigma if sigma_list is None else sigma_list,
            latent_noise=latent_noise,
            seed=noise_seed,
            positive=positive,
            negative=negative,
        )
        images = conditioning.canvas["samples"].shape[0]
        advice = frame_advice(cls.hidden, model, images, conditioning.lq.height, conditioning.lq.width)
        show_on_node(cls, *describe(conditioning), *advice)
        return io.NodeOutput(conditioning.positive, conditioning.negative, conditioning.canvas)
