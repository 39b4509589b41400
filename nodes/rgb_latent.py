"""PiD RGB Latent: an image as the latent that the bundled model reads."""

from comfy_api.latest import io

from ..pid_core.rgb import to_rgb_latent
from .show import show_on_node


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
                io.Image.Input("image", tooltip="The picture to enlarge. Both sides must be even."),
                io.Combo.Input(
                    "odd_size",
                    options=["error", "crop"],
                    default="error",
                    tooltip="What to do when a side is odd: stop with a message, or cut off the last row or column.",
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
        latent = to_rgb_latent(image, crop=odd_size == "crop")
        height, width = (2 * side for side in latent.shape[-2:])
        given = f"{image.shape[2]} x {image.shape[1]}"
        size = f"{width} x {height}"
        show_on_node(cls, f"{size} pixels" if given == size else f"{given} cropped to {size} pixels")
        return io.NodeOutput({"samples": latent})
