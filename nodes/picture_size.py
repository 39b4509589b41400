"""The size of the picture inside a LATENT: without what PiD RGB Latent added to make its sides even."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..pid_core.fingerprint import digest

SIZE_KEY = "pidkit_picture_size"  # in a LATENT: a PictureSize
CANVAS_KEY = "pidkit_canvas"  # in a conditioning: (height, width) of the canvas, where its latent is padded


class PictureSize(NamedTuple):
    """height, width in pixels of the pictures packed; latents: digests of their latents [1, C, h, w].

    Other nodes copy what lies beside the samples and change the samples, so the size holds for these latents only:
    flipped ones would have the added column on the other side.
    """

    height: int
    width: int
    latents: frozenset[str]


def with_size(samples: Tensor, height: int, width: int) -> dict:
    """A LATENT of pictures of height x width pixels, padded at the bottom and right to whole cells."""
    size = PictureSize(height, width, frozenset(digest(one) for one in samples.split(1)))
    return {"samples": samples, SIZE_KEY: size}


def picture_size(latent: dict) -> tuple[PictureSize | None, str | None]:
    """What is known of a LATENT's pictures, and a line for the node where it is known no more."""
    size = latent.get(SIZE_KEY)
    if size is None:
        return None, None
    if all(digest(one) in size.latents for one in latent["samples"].split(1)):
        return size, None
    return None, (
        "the latent was changed after PiD RGB Latent: the row or column added there to make the sides even stays on "
        "the picture"
    )
