"""PiD RGB Latent: an image as the latent that the bundled model reads."""

from comfy_api.latest import io

from ..pid_core.latents.rgb import BLOCK, ODD_SIZES, to_rgb_latent
from .comfy.node_text import show_on_node
from .comfy.picture_size import with_size


class PiDKitRGBLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitRGBLatent",
            display_name="PiD RGB Latent",
            category="PiD/picture",
            description="Packs an image into the latent of the bundled pid_nano model, without loss. "
            "Needs no VAE. The model makes it four times as large.",
            search_aliases=["pid upscale image", "pixel unshuffle", "rgb latent"],
            inputs=[
                io.Image.Input("image", tooltip="The picture to enlarge, of any size."),
                io.Combo.Input(
                    "odd_size",
                    options=list(ODD_SIZES),
                    default="pad",
                    tooltip="What to do when a side is odd. pad: the last row or column is doubled, and cut off again "
                    "after decoding: the result is exactly four times the picture. crop: it is cut off now. error: "
                    "stop with a message.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="12 channels at half size, family rgb. For PiD Latent Conditioning.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image, odd_size: str) -> io.NodeOutput:
        samples = to_rgb_latent(image, odd_size)
        packed, size = tuple(BLOCK * side for side in samples.shape[-2:]), tuple(image.shape[1:3])
        cropped = packed < size
        height, width = packed if cropped else size
        text = f"{width} x {height} pixels"
        show_on_node(cls, f"{size[1]} x {size[0]} cropped to {text}" if cropped else text)
        return io.NodeOutput({"samples": samples} if packed == (height, width) else with_size(samples, *size))
