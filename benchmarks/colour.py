"""What Colour Hold takes of an artificial cast, and what it leaves of the detail, on the bundled model's decodes.

    python -m benchmarks.colour [--limit N] [--crop SIDE] [--steps N]

Prints a Markdown table: the mean over the photos of benchmarks/photos.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pid_core import NANO_PATH, decode, load_network
from pid_core.images.colour import COLOUR_HOLDS, hold_colour_

BLOCK = 32  # px: a cast is what changes the mean of blocks of this size
WINDOW = 9  # px: detail is what differs from the mean of its surroundings


def tint(image: Tensor) -> Tensor:
    """The same teal over the whole image [B, 3, H, W] in [-1, 1]."""
    return image + torch.tensor([-0.15, 0.08, 0.12], device=image.device).view(1, 3, 1, 1)


def whitening(image: Tensor) -> Tensor:
    """Less contrast, and lighter."""
    return 0.8 * image + 0.15


def gradient(image: Tensor) -> Tensor:
    """Red goes from top to bottom, green from left to right, blue from bottom to top."""
    height, width = image.shape[-2:]
    down = torch.linspace(0, 1, height, device=image.device)[:, None].expand(height, width)
    across = torch.linspace(0, 1, width, device=image.device).expand(height, width)
    return image + torch.stack([-0.25 * down, 0.1 * across, 0.2 * (1 - down)])


CASTS: dict[str, Callable[[Tensor], Tensor]] = {"tint": tint, "whitening": whitening, "gradient": gradient}


def distance(image: Tensor, clean: Tensor) -> float:
    """Mean absolute difference of block means."""
    return float((F.avg_pool2d(image, BLOCK) - F.avg_pool2d(clean, BLOCK)).abs().mean())


def removed(clean: Tensor, shifted: Tensor, corrected: Tensor) -> float:
    """Share of the cast that is gone: 1 where `corrected` has the block means of the image without the cast."""
    return 1 - distance(corrected, clean) / distance(shifted, clean)


def detail(image: Tensor) -> float:
    """High-frequency energy: mean square of what a box blur takes away."""
    return float((image - F.avg_pool2d(image, WINDOW, 1, WINDOW // 2, count_include_pad=False)).square().mean())


def main() -> None:
    from benchmarks.photos import load_photos
    from benchmarks.restoration import centre_crop, shrink, to_latent

    parser = argparse.ArgumentParser(description="Colour hold on artificial casts.")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--crop", type=int, default=384, help="largest side decoded, in output pixels")
    parser.add_argument("--steps", type=int, help="default: what the checkpoint is best in")
    options = parser.parse_args()
    net = load_network(NANO_PATH)
    cases = [(cast, hold) for cast in CASTS for hold in COLOUR_HOLDS if hold != "none"]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {case: [] for case in cases}
    for _, photo in load_photos()[: options.limit]:
        small = shrink(centre_crop(photo, options.crop)[None])
        clean, reference = decode(net, to_latent(small), steps=options.steps), 2 * small - 1
        for cast, hold in cases:
            shifted = CASTS[cast](clean)
            corrected = hold_colour_(shifted.clone(), reference, hold)
            found[cast, hold].append((removed(clean, shifted, corrected), detail(corrected) / detail(clean)))
    print(
        "| cast | colour_hold | cast removed | worst photo | detail left | furthest from 1 |\n|---|---|---|---|---|---|"
    )
    for (cast, hold), rows in found.items():
        gone, left = zip(*rows, strict=True)
        furthest = max(left, key=lambda share: abs(share - 1))
        print(
            f"| {cast} | {hold} | {100 * sum(gone) / len(gone):.1f} % | {100 * min(gone):.1f} % "
            f"| {sum(left) / len(left):.3f} | {furthest:.3f} |"
        )


if __name__ == "__main__":
    main()
