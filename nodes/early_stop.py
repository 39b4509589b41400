"""PiD Early Stop: a generator's run ends before its last steps, and PiD finishes the picture."""

from __future__ import annotations

from collections.abc import Iterable

from comfy_api.latest import io

from ..pid_core.errors import in_words
from ..pid_core.latents.early_stop import generators, stop_early
from ..pid_core.latents.families import LatentModel
from .comfy.node_text import show_on_node


class PiDKitEarlyStop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = generators()
        few_step = in_words((name for name, row in rows.items() if row.stop == row.steps), "and")
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
                    options=list(rows),
                    default="flux",
                    tooltip="The model that makes the latent. It decides the recommended stop and the kind of noise. "
                    f"{few_step} run to the end: they have no step to spare.",
                ),
                io.Combo.Input(
                    "stop",
                    options=["recommended", "at step"],
                    default="recommended",
                    tooltip=f"recommended: where NVIDIA stops this generator ({_stops(rows.values())}), at the same "
                    "part of a schedule of another length. at step: after stop_step steps.",
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
        stopped = stop_early(sigmas, generator, None if stop == "recommended" else stop_step)
        show_on_node(cls, f"{stopped.step} of {stopped.steps} steps, degrade_sigma {stopped.degrade_sigma:.3f}")
        return io.NodeOutput(stopped.sigmas, stopped.degrade_sigma)


def _stops(rows: Iterable[LatentModel]) -> str:
    """ "Flux and SD3 after 24 of 28 steps, SDXL 26 of 30": those with a step to spare."""
    stops: dict[tuple[int, int], list[str]] = {}
    for row in sorted(rows, key=lambda row: (row.steps, -row.stop)):
        if row.stop < row.steps:
            stops.setdefault((row.stop, row.steps), []).append(row.shown)
    first, *others = [(in_words(names, "and"), stop, steps) for (stop, steps), names in stops.items()]
    texts = ["{} after {} of {} steps".format(*first), *("{} {} of {}".format(*other) for other in others)]
    return ", ".join(texts)
