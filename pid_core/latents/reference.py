"""A picture beside a decode: what a VAE decodes, the picture a latent was made from, an earlier result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.guard import all_finite

ASPECT_TOLERANCE = 0.03  # of width / height; more than rounding to whole latent cells makes, less than another crop
SCALE = 4  # output pixels per pixel of the picture that a VAE encoded
LARGEST_CELL = 16  # pixels of that picture per latent cell; what does not fill one, VAE Encode cuts off
HINT = "give the picture the latent was made from, or the VAE's decode of the latent"


def check_reference(shape: Sequence[int], reference: Tensor, name: str = "reference", hint: str = HINT) -> None:
    """Raise ValueError in one line if a picture [B or 1, 3, h, w] does not belong to pixels of `shape`, [B, 3, H, W].

    name: what the user calls the picture. hint: what to do where its aspect is another.
    """
    for what, found in (("image", shape), (name, reference.shape)):
        if len(found) != 4 or found[1] != 3 or 0 in found:
            raise ValueError(f"the {what} has shape {list(found)}; pictures of 3 channels are needed")
    images, _, height, width = shape
    if reference.shape[0] not in (1, images):
        raise ValueError(
            f"the {name} holds {reference.shape[0]} images, there are {images} to draw: give one, or one per image"
        )
    part = crop_as_encoded(reference, height, width)
    (ref_height, ref_width), cropped = reference.shape[-2:], part.shape != reference.shape
    if not cropped and abs(math.log(width * ref_height / (height * ref_width))) > ASPECT_TOLERANCE:
        raise ValueError(
            f"the {name} is {ref_width} x {ref_height}, the image {width} x {height}: their shapes differ; {hint}"
        )
    if not all_finite(reference):
        raise ValueError(f"the {name} holds NaN or infinite values: the step that made it failed")


def crop_as_encoded(reference: Tensor, height: int, width: int) -> Tensor:
    """The part of a picture [..., h, w] that VAE Encode keeps, where height x width is four times that part.

    VAE Encode cuts what does not fill a latent cell evenly from both sides. Any other picture comes back whole.
    """
    part = [side // SCALE for side in (height, width)]
    spare = [side - p for side, p in zip(reference.shape[-2:], part, strict=True)]
    whole = height % SCALE == width % SCALE == 0 and min(part) >= LARGEST_CELL
    if not (whole and all(0 <= n < LARGEST_CELL for n in spare)):
        return reference
    top, left = (n // 2 for n in spare)
    return reference[..., top : top + part[0], left : left + part[1]]


def resize(channel: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """[h, w] to another size, float32: bicubic, averaged first where it gets smaller."""
    if tuple(channel.shape) == tuple(size):
        return channel.float()
    return F.interpolate(channel.float()[None, None], size=tuple(size), mode="bicubic", antialias=True)[0, 0]
