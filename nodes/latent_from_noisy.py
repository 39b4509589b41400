"""PiD Latent From Noisy: the latent of a run that was stopped early, with exactly the noise that its level says."""

from __future__ import annotations

from comfy_api.latest import io

from ..pid_core.latents.early_stop import CarriedNoise, undo_sampler_scaling
from ..pid_core.latents.families import families
from .comfy.latent_tags import NOISE, tagged
from .shared.inputs import whose


class PiDKitLatentFromNoisy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sampled = [row for row in families() if row.generators]
        return io.Schema(
            node_id="PiDKitLatentFromNoisy",
            display_name="PiD Latent From Noisy",
            category="PiD/sampling",
            description="Undoes the scaling that ComfyUI's samplers put on a latent they stop early, so that it "
            "carries exactly the noise that degrade_sigma says. For PiD Latent Conditioning or PiD Decode with "
            "latent_noise keep.",
            search_aliases=["early stop", "noisy latent", "leftover noise", "pixel diffusion decoder"],
            inputs=[
                io.Latent.Input(
                    "latent",
                    tooltip="The output of a sampler that ran the sigmas of PiD Early Stop (not its denoised_output), "
                    "or of KSampler (Advanced) with leftover noise.",
                ),
                io.Combo.Input(
                    "latent_format",
                    options=[row.name for row in sampled],
                    default="flux",
                    tooltip=f"Whose latent it is. {whose(sampled)}",
                ),
                io.Float.Input(
                    "degrade_sigma",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    force_input=True,
                    optional=True,
                    tooltip="The noise level the latent was stopped at, 0 to below 1, from PiD Early Stop. Left open, "
                    "as where that node is bypassed, the latent is a finished one and stays as it is.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The latent with its noise, for PiD Latent Conditioning with latent_noise keep.",
                )
            ],
        )

    @classmethod
    def execute(cls, latent: dict, latent_format: str, degrade_sigma: float = 0.0) -> io.NodeOutput:
        samples = latent["samples"]
        out = latent | {"samples": undo_sampler_scaling(samples, degrade_sigma, latent_format)}
        carried = CarriedNoise(latent_format, degrade_sigma) if degrade_sigma > 0 else None
        return io.NodeOutput(tagged(out, **{NOISE: carried}))
