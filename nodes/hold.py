"""PiD Hold: a model whose samplers hold every step to a picture."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..pid_core.latents.rgb import to_pixels
from .comfy.holding import with_hold
from .comfy.node_text import show_on_node
from .comfy.pid_models import config_of, with_checks
from .shared.holding import describe_hold, hold_to


class PiDKitHold(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitHold",
            display_name="PiD Hold",
            category="PiD/sampling",
            description="Holds a run to a picture at every step: what the drawn picture, made four times smaller, "
            "differs from it by is given back. For KSampler and the custom samplers; PiD Decode has the same as hold.",
            search_aliases=["ddnm", "null space", "consistency", "back projection", "identity", "faithful", "fidelity"],
            inputs=[
                io.Model.Input("model", tooltip="A PiD model, from PiD Loader or Load Diffusion Model."),
                io.Image.Input(
                    "reference",
                    tooltip="What to keep to: VAE Decode of the latent, or the source picture. Any size, the same "
                    "shape. One, or one per image.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of the difference is given back at the last step, 0 to 1; less at earlier ones. "
                    "1: the picture, made four times smaller, is the reference. Detail finer than that stays PiD's.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model, held to the picture from here on.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, reference: Tensor, strength: float) -> io.NodeOutput:
        config_of(model.model)
        hold = hold_to(to_pixels(reference), strength)
        show_on_node(cls, *describe_hold(hold))
        return io.NodeOutput(with_hold(with_checks(model), hold))
