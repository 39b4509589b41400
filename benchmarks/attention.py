"""What a network's attention is worth to its pictures: none at all, or tokens that see only what is near.

    python -m benchmarks.attention [--model FILE] [--limit N]

Photos, and pieces of them repeated all over a frame, both 256 x 256, made four times smaller, as they are and with
noise of a known degrade_sigma. Prints a Markdown table: PSNR to the original of a 4-step decode, and how it changes
with attention zeroed, and with every token seeing only tokens within a distance. A network that loses nothing says
nothing about windows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measures import psnr
from benchmarks.photos import load_photos
from benchmarks.restoration import centre_crop, shrink
from pid_core import NANO_PATH, PiDNetwork, decode, load_network

ATTENTIVE_PATH = Path(__file__).parents[1] / "tests/assets/attentive.safetensors"
SIDE = 256
NEAR = (8, 24, 64)  # pixels
SIGMAS = (0.0, 0.3)


def nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention whose result is zero."""
    return torch.zeros_like(q)


def near(pixels: int, patch: int, columns: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention to the caption and to patches that begin within so many pixels, in both directions.

    The caption's tokens see each other alone, or they would carry to every patch what all patches hold.
    """
    tokens = k.shape[2]
    image = tokens // columns * columns
    place = torch.arange(image, device=q.device)
    rows, cols = place // columns, place % columns
    allowed = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device)
    far = torch.maximum((rows[:, None] - rows).abs(), (cols[:, None] - cols).abs()) * patch > pixels
    allowed[tokens - image :, tokens - image :] = ~far
    allowed[: tokens - image, tokens - image :] = False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed[-q.shape[2] :])


@contextmanager
def attention(net: PiDNetwork, instead) -> Iterator[None]:
    """While this lasts the network attends by this."""
    before, net.attention = net.attention, instead
    try:
        yield
    finally:
        net.attention = before


def repeated(picture: Tensor, height: int = 40, width: int = 56) -> Tensor:
    """[3, H, W] -> a piece of its middle, all over a frame of its size, in rows that are shifted as bricks are."""
    _, rows, cols = picture.shape
    top, left = (rows - height) // 2, (cols - width) // 2
    piece = picture[:, top : top + height, left : left + width]
    line = piece.repeat(1, 1, -(-cols // width))
    lines = [line.roll(k % 2 * width // 2, 2) for k in range(-(-rows // height))]
    return torch.cat(lines, 1)[:, :rows, :cols]


def noisy_latent(picture: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """[3, H, W] in [0, 1] -> the latent [1, 12, H / 8, W / 8] of its quarter, with the noise of a degrade_sigma."""
    latent = F.pixel_unshuffle(2 * shrink(picture[None]) - 1, 2)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    return (1 - sigma) * latent + sigma * noise


def restored(net: PiDNetwork, picture: Tensor, sigma: float, **options) -> Tensor:
    """Decoded again, [1, 3, H, W] in [0, 1]."""
    return (decode(net, noisy_latent(picture, sigma), degrade_sigma=sigma, **options) + 1) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ATTENTIVE_PATH, help=f"the bundled one is {NANO_PATH}")
    parser.add_argument("--limit", type=int, default=None, help="photos to use")
    options = parser.parse_args()
    net = load_network(options.model)
    patch = net.config.patch_size
    ways = [nothing, *(partial(near, pixels, patch, SIDE // patch) for pixels in NEAR)]
    photos = [centre_crop(photo, SIDE) for _, photo in load_photos()[: options.limit]]
    print("| pictures | degrade_sigma | dB | no attention | " + " | ".join(f"within {n} px" for n in NEAR) + " |")
    print("|" + "---|" * (4 + len(NEAR)))
    for name, pictures in (("photos", photos), ("repeated pieces", [repeated(photo) for photo in photos])):
        for sigma in SIGMAS:
            lines = []
            for picture in pictures:
                line = [psnr(restored(net, picture, sigma), picture[None])]
                for way in ways:
                    with attention(net, way):
                        line.append(psnr(restored(net, picture, sigma), picture[None]))
                lines.append(line)
            whole, *less = np.mean(lines, 0)
            cells = [f"{whole:.2f}", *(f"{value - whole:+.2f}" for value in less)]
            print(f"| {name} | {sigma:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
