"""PiD Regional Caption: a text for a rectangle of the picture, for the context windows in it."""

from __future__ import annotations

from comfy_api.latest import io

from ..pid_core.windows.regions import Region
from .comfy.regions import RegionalCaption, Regions

LARGEST = 16384


def _pixels(name: str, default: int, least: int, tooltip: str) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=least, max=LARGEST, step=8, tooltip=tooltip)


class PiDKitRegionalCaption(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitRegionalCaption",
            display_name="PiD Regional Caption",
            category="PiD/sampling",
            description="A text of its own for a part of the picture. Context Window (PiD) gives it to the windows "
            "that lie at least half in the rectangle; the others keep the text of PiD Latent Conditioning.",
            search_aliases=["caption per tile", "regional prompt", "tile prompt", "pixel diffusion decoder"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="The text for the rectangle, from CLIP Text Encode with PiD's encoder."
                ),
                _pixels("x", 0, 0, "Left edge of the rectangle, in pixels of the output."),
                _pixels("y", 0, 0, "Top edge of the rectangle, in pixels of the output."),
                _pixels("width", 2048, 8, "Width of the rectangle, in pixels of the output."),
                _pixels("height", 2048, 8, "Height of the rectangle, in pixels of the output."),
                Regions.Input(
                    "regions",
                    optional=True,
                    tooltip="More of them: the output of another PiD Regional Caption. Where rectangles cover the same "
                    "part of a window, the one further up the chain wins.",
                ),
            ],
            outputs=[Regions.Output(display_name="regions", tooltip="For Context Window (PiD), or the next of these.")],
        )

    @classmethod
    def execute(
        cls, conditioning: list, x: int, y: int, width: int, height: int, regions: list[RegionalCaption] | None = None
    ) -> io.NodeOutput:
        if len(conditioning) != 1:
            raise ValueError(
                f"the conditioning holds {len(conditioning)} texts: a rectangle takes one, without Conditioning Combine"
            )
        caption, options = conditioning[0]
        entry = RegionalCaption(Region(x, y, width, height), caption, options.get("attention_mask"))
        return io.NodeOutput([*(regions or []), entry])
