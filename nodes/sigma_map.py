"""PiD Sigma Map: another degrade_sigma inside a mask."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..pid_core.captions.fingerprint import digest
from ..pid_core.images.heat import heat
from ..pid_core.images.pixels import eight_bits
from ..pid_core.latents.lq_input import TRAINED_SIGMA
from ..pid_core.latents.sigma_map import SigmaMap, SigmaMask
from .comfy.node_text import show_on_node
from .shared.inputs import SigmaList
from .shared.pictures import save_picture
from .shared.sigma_maps import fitted, stretched

SHOWN = 16  # pictures, at most
LONGEST = 512  # side of a shown picture in pixels
SCALE = 4  # from a picture to what PiD makes of it
CELL = 8  # pixels of the output that one value is shown for, at least


class PiDKitSigmaMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitSigmaMap",
            display_name="PiD Sigma Map",
            category="PiD/sampling",
            description="Another degrade_sigma inside a mask: a ruined face is rebuilt, the rest left alone. Several "
            "in a row add up, the last on top. Shows the values as colours over the picture.",
            search_aliases=["pid", "degrade sigma", "mask", "region", "face", "inpaint", "local strength"],
            inputs=[
                io.Mask.Input(
                    "mask",
                    tooltip="Where sigma_inside holds: from ComfyUI's mask editor (right click on Load Image), a "
                    "segmenter or a face detector. Drawn on the picture that becomes the latent, of any size. One, or "
                    "one per picture.",
                ),
                io.Float.Input(
                    "sigma_inside",
                    default=0.4,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="degrade_sigma where the mask is, 0 to 1, 0.4 by default. Higher: trust the picture less "
                    f"and invent more. Trained up to {TRAINED_SIGMA:g}.",
                ),
                io.Int.Input(
                    "feather",
                    default=128,
                    min=0,
                    max=2048,
                    step=8,
                    tooltip="Pixels of the result, outside the mask, over which the value falls to that around, 0 to "
                    "2048, 128 by default. What is under it gets softer. Less than four latent cells (128 pixels; 32 "
                    "with rgb) show an edge, and more may show a faint one.",
                ),
                io.Float.Input(
                    "base_sigma",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="degrade_sigma outside the mask, 0 to 1, 0 by default. Not used with sigma_list.",
                ),
                io.MultiType.Input(
                    "sigma_list",
                    types=[SigmaList, io.Float],
                    optional=True,
                    tooltip="What holds outside the mask, in place of base_sigma: from PiD Sigma Tuner, or another PiD "
                    "Sigma Map, which this one lies over.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The picture, to show the map over it. Nothing else comes of it."
                ),
            ],
            outputs=[
                SigmaList.Output(
                    display_name="sigma_list",
                    tooltip="For sigma_list of PiD Decode, PiD Latent Conditioning, PiD Sigma Sweep or another PiD "
                    "Sigma Map.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        mask: Tensor,
        sigma_inside: float,
        feather: int,
        base_sigma: float,
        sigma_list: list | SigmaMap | None = None,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        below = sigma_list if isinstance(sigma_list, SigmaMap) else SigmaMap(tuple(sigma_list or [base_sigma]), ())
        share = float(mask.mean())
        if share == 0:
            result, text = below, "the mask is empty: nothing to change; paint on it, or connect another"
        else:
            result = SigmaMap(below.base, (*below.masks, SigmaMask(mask, sigma_inside, feather)))
            text = f"{sigma_inside:g} on {100 * share:.0f} % of the picture"
        pictures = max(len(result.base), len(mask)) if image is None else len(image)
        height, width = mask.shape[1:] if image is None else image.shape[1:3]
        shown, lines = fitted(result, pictures)
        lines += stretched(result, height, width)
        show_on_node(cls, text, *lines)
        views = [_view(shown.of_picture(i), height, width, image, i) for i in range(min(pictures, SHOWN))]
        return io.NodeOutput(result, ui={"images": views})


def _view(sigma_map: SigmaMap, height: int, width: int, image: Tensor | None, index: int) -> dict[str, str]:
    """The map in colours over the picture of that index, for the node."""
    scale = min(1, LONGEST / max(height, width))
    rows, cols = (max(1, round(side * scale)) for side in (height, width))
    values = sigma_map.on_cells(rows, cols, max(CELL, SCALE * height / rows))[0, 0]
    picture = None if image is None else eight_bits(image[index], LONGEST).float() / 255
    shown = heat(values, picture)
    return save_picture(shown, f"map_{digest(shown)}", LONGEST)
