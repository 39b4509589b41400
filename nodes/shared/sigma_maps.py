"""A sigma map between PiD Sigma Map and what decodes: fitted to the pictures, with words about what was done to it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from ...pid_core.captions.fingerprint import digest
from ...pid_core.images.framing import Framing, prepare_image
from ...pid_core.latents.sigma_map import SigmaMap

SAME_SHAPE = 0.02  # up to which two aspects count as one


def fitted(sigma_map: SigmaMap, images: int, framing: Framing | None = None) -> tuple[SigmaMap, list[str]]:
    """The map for so many pictures, and lines for the node.

    framing: how the pictures were framed. Masks are of the pictures before, except those that have the size after.
    """
    masks, lines = [], []
    for number, one in enumerate(sigma_map.masks, start=1):
        mask = one.mask
        if len(mask) not in (1, images):
            lines.append(f"{_name(sigma_map, number)} holds {len(mask)} masks for {images} pictures: taken in turn")
        masks.append(one if framing is None else one._replace(mask=_framed(mask, framing)))
    return replace(sigma_map, masks=tuple(masks)).for_pictures(images), lines


def _framed(mask: Tensor, framing: Framing) -> Tensor:
    if tuple(mask.shape[1:]) == tuple(framing.canvas):
        return mask
    picture = F.interpolate(mask[:, None], tuple(framing.source), mode="nearest-exact").movedim(1, -1)
    return prepare_image(picture.expand(-1, -1, -1, 3), framing)[..., 0]


def sigma_of_each(level: float | list | SigmaMap, images: int) -> list[float] | list[SigmaMap] | None:
    """The sigma of every image where each is decoded on its own; None: several images, with one value for all."""
    if isinstance(level, SigmaMap):
        return [level.of_picture(i) for i in range(images)]
    sigmas = list(level) if isinstance(level, list | tuple) else [level]
    if len(sigmas) == 1 and images > 1:
        return None
    if len(sigmas) != images:
        raise ValueError(
            f"sigma_list has {len(sigmas)} values, latent holds {images} images: "
            "give PiD Sigma Tuner the images that the latent was made from"
        )
    return [float(sigma) for sigma in sigmas]


def stretched(sigma_map: SigmaMap, height: int, width: int) -> list[str]:
    """Lines about masks of another shape than the picture of height x width pixels."""
    lines = []
    for number, one in enumerate(sigma_map.masks, start=1):
        rows, cols = one.mask.shape[1:]
        if abs(cols * height / (rows * width) - 1) > SAME_SHAPE:
            name = _name(sigma_map, number)
            lines.append(f"{name} is {cols} x {rows}, the picture {width} x {height}: it was stretched to fit")
    return lines


def _name(sigma_map: SigmaMap, number: int) -> str:
    return "the sigma map's mask" if len(sigma_map.masks) == 1 else f"mask {number} of the sigma map"


def sigma_mark(sigma: float | SigmaMap) -> Hashable:
    """Equal for values of degrade_sigma that are the same."""
    if isinstance(sigma, SigmaMap):
        return sigma.base, tuple((digest(one.mask), one.sigma, one.feather) for one in sigma.masks)
    return sigma
