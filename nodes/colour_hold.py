"""PiD Colour Hold: colours of a decoded image from a reference, its detail kept."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..pid_core.images.colour import hold_colour_
from .shared.inputs import colour_hold_input, fidelity_input


class PiDKitColourHold(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitColourHold",
            display_name="PiD Colour Hold",
            category="PiD/picture",
            description="Gives a decoded image the colours of a reference: the VAE's decode of the same latent, or the "
            "picture it was made from. PiD Decode can do the same before it cuts off values out of range.",
            search_aliases=["color match", "color fix", "colour fix", "whitening", "teal", "fidelity", "wavelet"],
            inputs=[
                io.Image.Input("image", tooltip="The decoded images."),
                io.Image.Input(
                    "reference",
                    tooltip="Where the colours come from, of any size but the same shape: VAE Decode of the latent, or "
                    "the source picture. One, or one per image.",
                ),
                colour_hold_input("low_frequencies"),
                fidelity_input(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The images in the colours of the reference.")],
        )

    @classmethod
    def execute(cls, image: Tensor, reference: Tensor, colour_hold: str, fidelity: float) -> io.NodeOutput:
        result = image.clone()
        hold_colour_(channels_first(result), channels_first(reference), colour_hold, fidelity)
        return io.NodeOutput(result.clamp_(0, 1))


def channels_first(image: Tensor) -> Tensor:
    """[B, H, W, 3 or 4] -> a view [B, 3, H, W], without alpha."""
    return image[..., :3].movedim(-1, 1)
