"""Images and the `rgb` latent family of the bundled model: lossless, two by two pixels per latent cell."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BrokenPixelsError, NothingLeftError, NotPixelsError, OddSizeError
from ..model.guard import all_finite
from .mirror import extend

BLOCK = 2
ODD_SIZES = ("pad", "crop", "error")
CHUNK = 2**21  # pixels worked on at once: the copies of a large image add up to gigabytes


def to_pixels(image: Tensor) -> Tensor:
    """[B, H, W, 3 or 4] in [0, 1] -> [B, 3, H, W] in [-1, 1]; a fourth channel (alpha) is dropped.

    Raises ValueError for any other shape.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise ValueError(f"an image is [B, H, W, 3], this one has shape {list(image.shape)}")
    return image[..., :3].movedim(-1, 1).float() * 2 - 1


def to_image(pixels: Tensor, device: torch.device | None = None) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> [B, H, W, 3] in [0, 1], clamped, where pixels is; undoes `to_pixels`.

    device: where the arithmetic is done, in parts; a card is faster than a CPU, ways there and back included.

    Float32 is finer near 0 than near -1, so dark values lose their last bits on the way there. What lies
    within 2^-25 of an 8- or 16-bit level is put back on it: savers that cut off would else lose a level.
    Raises ValueError for any other shape, and for NaN, which would be saved as black.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise NotPixelsError(pixels.shape)
    if not all_finite(pixels):
        raise BrokenPixelsError
    batch, _, height, width = pixels.shape
    out = torch.empty(batch, height, width, 3, device=pixels.device)
    step = max(1, CHUNK // (batch * width))
    for top in range(0, height, step):
        part = pixels[:, :, top : top + step].to(device or pixels.device, torch.float32)
        image = ((part + 1) / 2).clamp(0, 1).movedim(1, -1)
        level = (image * 65535).round() / 65535
        out[:, top : top + step] = torch.where((image - level).abs() <= 2**-25, level, image)
    return out


def to_rgb_latent(image: Tensor, odd: str = "pad") -> Tensor:
    """[B, H, W, 3] in [0, 1] -> [B, 12, H/2, W/2], the latent of the `rgb` family.

    odd: an odd side gets its last row or column once more ("pad"; decode with `size` four times the picture's, and it
    is cut off again), loses it ("crop"), or is an "error". Raises ValueError.
    """
    if odd not in ODD_SIZES:
        raise ValueError(f"odd is {odd!r}; choose one of {', '.join(ODD_SIZES)}")
    pixels = to_pixels(image)
    height, width = pixels.shape[-2:]
    if min(pixels.shape) < 1:
        raise ValueError(f"the image is empty: {width} x {height}")
    if odd == "pad":
        pixels = extend(pixels, height + height % BLOCK, width + width % BLOCK)
    elif odd == "error" and (height % BLOCK or width % BLOCK):
        raise OddSizeError(f"the image is {width} x {height}, and a side is odd", (height, width))
    height, width = pixels.shape[-2:]
    if height < BLOCK or width < BLOCK:
        raise NothingLeftError(f"the image is {width} x {height}, nothing is left of it when cropped", (height, width))
    return F.pixel_unshuffle(pixels[..., : height // BLOCK * BLOCK, : width // BLOCK * BLOCK], BLOCK)


def from_rgb_latent(latent: Tensor) -> Tensor:
    """[B, 12, h, w] of the `rgb` family -> pixels [B, 3, 2h, 2w] in [-1, 1]; undoes `to_rgb_latent`."""
    return F.pixel_shuffle(latent.float(), BLOCK)
