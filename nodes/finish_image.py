"""PiD Finish Image: a decoded picture to the size and shape that was asked for."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..pid_core.images.framing import finish_image
from .shared.inputs import Framed, framing_input


class PiDKitFinishImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitFinishImage",
            display_name="PiD Finish Image",
            category="PiD/picture",
            description="Undoes the padding or cropping of PiD Prepare Image after VAE Decode. PiD Decode does it "
            "itself when framing is connected there.",
            search_aliases=["pid restore size", "uncrop", "unpad", "crop back"],
            inputs=[
                io.Image.Input("image", tooltip="What PiD made of the prepared picture."),
                framing_input(tooltip="From PiD Prepare Image."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The whole picture, enlarged.")],
        )

    @classmethod
    def execute(cls, image: Tensor, framing: Framed) -> io.NodeOutput:
        return io.NodeOutput(finish_image(image, framing.framing, framing.source))
