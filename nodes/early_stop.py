"""PiD Early Stop and PiD Latent From Noisy: end a generator's run before its last steps, and hand its latent to PiD."""

from __future__ import annotations

from comfy_api.latest import io

from ..pid_core.latents.early_stop import GENERATORS, CarriedNoise, stop_early, undo_sampler_scaling
from .comfy.latent_tags import NOISE, tagged
from .comfy.show import show_on_node
from .shared.lq_conditioning import image_latent

FAMILIES = ("flux", "flux2", "sd3", "sdxl", "qwenimage")


class PiDKitEarlyStop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitEarlyStop",
            display_name="PiD Early Stop",
            category="PiD/sampling",
            description="Shortens the generator's schedule: the last steps are not run, PiD finishes the picture. "
            "Gives the degrade_sigma that belongs to where it stops.",
            search_aliases=["stop early", "fewer steps", "split sigmas", "degrade sigma", "pixel diffusion decoder"],
            inputs=[
                io.Sigmas.Input(
                    "sigmas", tooltip="The generator's whole schedule, from BasicScheduler or another scheduler node."
                ),
                io.Combo.Input(
                    "generator",
                    options=list(GENERATORS),
                    default="flux",
                    tooltip="The model that makes the latent. It decides the recommended stop and the kind of noise. "
                    "flux2_klein and zimage_turbo run to the end: they have no step to spare.",
                ),
                io.Combo.Input(
                    "stop",
                    options=["recommended", "at step"],
                    default="recommended",
                    tooltip="recommended: where NVIDIA stops this generator (Flux and SD3 after 24 of 28 steps, SDXL "
                    "26 of 30, Flux.2 and Z-Image 46 of 50, Qwen-Image 44 of 50), at the same part of a schedule of "
                    "another length. at step: after stop_step steps.",
                ),
                io.Int.Input(
                    "stop_step",
                    default=24,
                    min=1,
                    max=10000,
                    tooltip="With stop set to at step: how many steps to run, 1 to as many as the schedule has. Fewer "
                    "steps leave more noise for PiD to fill in.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(display_name="sigmas", tooltip="The steps to run. For SamplerCustom or its kin."),
                io.Float.Output(
                    display_name="degrade_sigma",
                    tooltip="The noise level of the latent that comes out, 0 to 1. For PiD Latent From Noisy and "
                    "for PiD Latent Conditioning.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, sigmas, generator: str, stop: str, stop_step: int) -> io.NodeOutput:
        made = stop_early(sigmas, generator, None if stop == "recommended" else stop_step)
        show_on_node(cls, f"{made.step} of {made.steps} steps, degrade_sigma {made.degrade_sigma:.3f}")
        return io.NodeOutput(made.sigmas, made.degrade_sigma)


class PiDKitLatentFromNoisy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
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
                    options=list(FAMILIES),
                    default="flux",
                    tooltip="Whose latent it is. flux: FLUX.1, Z-Image. flux2: FLUX.2, Klein. sd3: SD 3 and 3.5. "
                    "sdxl: SDXL. qwenimage: Qwen-Image.",
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
        samples = image_latent(latent)
        out = latent | {"samples": undo_sampler_scaling(samples, degrade_sigma, latent_format)}
        carried = CarriedNoise(latent_format, degrade_sigma) if degrade_sigma > 0 else None
        return io.NodeOutput(tagged(out, **{NOISE: carried}))
