"""PiD Early Stop: a generator's run ends before its last steps, and PiD finishes the picture."""

from __future__ import annotations

from comfy_api.latest import io

from ..pid_core.latents.early_stop import GENERATORS, stop_early
from .comfy.show import show_on_node


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
