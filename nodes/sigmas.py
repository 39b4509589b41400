"""PiD Sigmas: a checkpoint's noise levels for the custom samplers."""

import comfy.samplers
from comfy_api.latest import io
from torch import Tensor

from ..pid_core import distilled_sigmas
from ..pid_core.sampling.schedule import DISTILLED_SIGMAS, undistilled_sigmas
from ..pid_core.sampling.start import from_step
from .comfy.pid_models import steps_for
from .comfy.sampling import PixelDiTSampling, UndistilledSampling
from .shared.inputs import ABSENT, start_at_input

MOST = len(DISTILLED_SIGMAS) - 1


class PiDKitSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitSigmas",
            display_name="PiD Sigmas",
            category="PiD/sampling",
            description="The noise levels PiD's 4-step checkpoints were trained at: 0.999, 0.866, 0.634, "
            "0.342, 0. For SamplerCustom and SamplerCustomAdvanced, with the lcm sampler and cfg 1. "
            "With the model connected, also those of undistilled checkpoints and PixelDiT.",
            search_aliases=["pid scheduler", "distilled sigmas", "undistilled", "pixel diffusion decoder"],
            inputs=[
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="1 to 4 steps for the distilled checkpoints: they know no other levels. Fewer are faster "
                    "and smoother. 25 for undistilled ones, 30 for PixelDiT. 0: what the model is best at, 4 where "
                    "none is connected.",
                ),
                start_at_input(
                    1000,
                    "Give the sampler that picture as latent_image, by VAE Encode with Pixel-Space VAE.",
                    optional=True,
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model from PiD Loader. Needed for undistilled checkpoints and PixelDiT, whose "
                    "levels are others.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="Noise levels, falling to 0.")],
        )

    @classmethod
    def validate_inputs(cls, steps: int | None = None, model=ABSENT) -> bool | str:
        if steps is not None and model is ABSENT and steps > MOST:
            return (
                f"steps is {steps}, but 4-step checkpoints know 1 to {MOST}: lower it, or connect model for "
                "the levels of an undistilled checkpoint or PixelDiT"
            )
        return True

    @classmethod
    def execute(cls, steps: int, model=None, start_at: int = 1) -> io.NodeOutput:
        return io.NodeOutput(from_step(_levels(steps, model), start_at))


def _levels(steps: int, model) -> Tensor:
    sampling = None if model is None else model.get_model_object("model_sampling")
    if isinstance(sampling, UndistilledSampling):
        return undistilled_sigmas(steps or 25, sampling.shift)
    if isinstance(sampling, PixelDiTSampling):
        return comfy.samplers.calculate_sigmas(sampling, "simple", steps or 30).cpu()
    return distilled_sigmas((steps or 4) if model is None else steps_for(model, steps))
