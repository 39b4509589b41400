"""PiD Sigmas: the distilled student's noise levels for the custom samplers."""

from comfy_api.latest import io

from ..pid_core import distilled_sigmas


class PiDKitSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitSigmas",
            display_name="PiD Sigmas",
            category="PiD",
            description="The noise levels PiD's 4-step checkpoints were trained at: 0.999, 0.866, 0.634, "
            "0.342, 0. For SamplerCustom and SamplerCustomAdvanced, with the lcm sampler and cfg 1.",
            search_aliases=["pid scheduler", "distilled sigmas", "pixel diffusion decoder"],
            inputs=[
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=4,
                    tooltip="1 to 4 steps, 4 by default. Fewer steps are faster and smoother. "
                    "The checkpoints know no other levels, so more than 4 does not exist.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="Noise levels, falling to 0.")],
        )

    @classmethod
    def execute(cls, steps: int) -> io.NodeOutput:
        return io.NodeOutput(distilled_sigmas(steps))
