"""How near the suggested degrade_sigma comes to the best one, by the bundled model in one step with `scale`.

    python -m benchmarks.suggestion --held FOLDER

Small pictures made from the held photos are worn in known ways. The whole of each is what PiD Sigma Tuner suggests a
sigma for; its middle is decoded at every sigma of a grid and at that one. What the suggestion loses is told in dB
against the best of the grid, and on clean ones against 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.measures import psnr
from benchmarks.photos import load_held, load_photos
from benchmarks.restoration import as_jpeg, centre_crop, eight_bits, restore, shrink, to_latent
from pid_core import NANO_PATH, load_network
from pid_core.images.blur import gaussian
from pid_core.images.quality import estimate_quality, suggest_sigma
from pid_core.latents.lq_input import prepare_lq

SIDE = 256  # pixels of the original's middle
GRID = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def noisy(level: float) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(3)
    return lambda small: eight_bits(small + level / 255 * torch.randn(small.shape, generator=generator))


def blurred(small: Tensor) -> Tensor:
    return eight_bits(torch.stack([gaussian(channel, 1.5) for channel in small[0]])[None])


WORN: dict[str, Callable[[Tensor], Tensor]] = {
    "clean": lambda small: small,
    "noise 5": noisy(5),
    "noise 10": noisy(10),
    "noise 25": noisy(25),
    "blur 1.5": blurred,
    "JPEG 60": lambda small: as_jpeg(small, 60),
    "JPEG 30": lambda small: as_jpeg(small, 30),
}


def at(net, small: Tensor, original: Tensor, sigma: float) -> float:
    latent = prepare_lq(to_latent(small), "rgb", sigma, latent_noise="scale").latent
    return psnr(restore(net, latent, 1, sigma), original)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--held", type=Path, help="folder of benchmarks/photos.py's held photos; else those for choices"
    )
    args = parser.parse_args()
    net = load_network(NANO_PATH)
    lost: dict[str, list[float]] = {name: [] for name in WORN}
    chosen: dict[str, list[float]] = {name: [] for name in WORN}
    for _, photo in load_held(args.held) if args.held else load_photos():
        original = centre_crop(photo, SIDE)[None]
        whole, small = (eight_bits(shrink(picture)) for picture in (photo[None], original))
        for name, wear in WORN.items():
            worn = wear(small)
            sigma = suggest_sigma(estimate_quality(wear(whole)[0].movedim(0, -1)), invents=net.config.invents)
            found = {one: at(net, worn, original, one) for one in sorted({*GRID, sigma})}
            best = found[0.0] if name == "clean" else max(found.values())
            lost[name].append(best - found[sigma])
            chosen[name].append(sigma)
    print("| picture | suggested, mean (least to most) | lost against the best, dB, mean | most |\n|---|---|---|---|")
    for name in WORN:
        sigmas = chosen[name]
        spread = f"{np.mean(sigmas):.3f} ({min(sigmas):.2f} to {max(sigmas):.2f})"
        print(f"| {name} | {spread} | {np.mean(lost[name]):.2f} | {max(lost[name]):.2f} |")
    print(
        f"\nall but clean, mean: {np.mean([value for name in WORN if name != 'clean' for value in lost[name]]):.2f} dB"
    )


if __name__ == "__main__":
    main()
