"""The size of the picture inside a LATENT: without what PiD RGB Latent added to make its sides even."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .latent_tags import SIZE, read_tag, tagged

CANVAS_KEY = "pidkit_canvas"  # in a conditioning: (height, width) of the canvas, where its latent is padded


class PictureSize(NamedTuple):
    """In pixels."""

    height: int
    width: int


def with_size(samples: Tensor, height: int, width: int) -> dict:
    """A LATENT of pictures of height x width pixels, padded at the bottom and right to whole cells."""
    return tagged({"samples": samples}, **{SIZE: PictureSize(height, width)})


def picture_size(latent: dict) -> tuple[PictureSize | None, str | None]:
    """What is known of a LATENT's pictures, and a line for the node where it is known no more."""
    size = read_tag(latent, SIZE, of_all=True)
    if size is not None or SIZE not in latent:
        return size, None
    return None, (
        "the latent was changed after PiD RGB Latent: the row or column added there to make the sides even stays on "
        "the picture"
    )
