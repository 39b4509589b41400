"""What is lost and saved where a run begins at a later step, from a picture.

    python -m benchmarks.starting [--held FOLDER] [--model FILE] [--limit N] [--crop N] [--write]

Each photo, four times smaller, decodes in four steps; then from each later step: from the small picture enlarged
(bicubic), and from the full result, both with another seed. Photos and the held ones' folder: benchmarks/photos.py.
--write, with --held, puts the table into benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.measures import mean_gradient, psnr
from benchmarks.photos import load_held, load_photos
from benchmarks.restoration import centre_crop, eight_bits, enlarge, restore, shrink, to_latent
from benchmarks.written import RESULTS, write_between
from pid_core import NANO_PATH, decode, degrade, load_network

STEPS = 4
SIGMAS = (0.0, 0.4)


class Kept(NamedTuple):
    """One run beside its four full steps, all in dB but shares and levels."""

    original: float  # PSNR to the original, more than the full run's
    full: float  # PSNR to the full run
    gradient: float  # mean gradient, a share of the full run's
    cast: float  # largest change of a channel's mean, 1/255


def runs(net, original: Tensor, sigma: float) -> Iterator[tuple[tuple, Kept]]:
    """(sigma, picture to start from, start_at) and how it compares."""
    small = eight_bits(shrink(original))
    latent = degrade(to_latent(small), sigma, net.family or "rgb", seed=1) if sigma else to_latent(small)
    full = eight_bits(restore(net, latent, STEPS, sigma))
    begun = {"the source, enlarged": enlarge(small), "the full result": full}

    def compare(image: Tensor) -> Kept:
        image = eight_bits(image)
        return Kept(
            psnr(image, original) - psnr(full, original),
            psnr(image, full),
            mean_gradient(image) / mean_gradient(full),
            float((image - full).mean((0, 2, 3)).abs().max()) * 255,
        )

    other = decode(net, latent, degrade_sigma=sigma, steps=STEPS, seed=1).add(1).div(2)
    yield (sigma, "noise, another seed", 1), compare(other)
    for name, picture in begun.items():
        for start_at in range(2, STEPS + 1):
            start = 2 * picture - 1
            image = decode(net, latent, degrade_sigma=sigma, steps=STEPS, seed=1, start=start, start_at=start_at)
            yield (sigma, name, start_at), compare(image.add(1).div(2))


def table(found: dict[tuple, list[Kept]]) -> str:
    lines = [
        "| degrade_sigma | begins from | start_at | calls saved | dB to the original, against 4 full steps "
        "| dB to 4 full steps, mean (worst photo) | gradient, share | cast, 1/255, worst photo |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (sigma, name, start_at), rows in found.items():
        values = np.array(rows)
        mean, worst = values.mean(0), values.min(0)
        lines.append(
            f"| {sigma:g} | {name} | {start_at} | {start_at - 1} of {STEPS} | {mean[0]:+.3f} | {mean[1]:.1f} "
            f"({worst[1]:.1f}) | {mean[2]:.3f} | {values[:, 3].max():.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs that begin from a picture, against four full steps.")
    parser.add_argument("--model", type=Path, default=NANO_PATH)
    parser.add_argument("--held", type=Path, help="folder with the held photos: measure on those")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--crop", type=int, default=384, help="largest side decoded, in output pixels")
    parser.add_argument("--write", action="store_true", help="with --held: the table into RESULTS.md")
    options = parser.parse_args()
    if options.write and (not options.held or options.limit):
        parser.error("--write is for all held photos: give --held, and no --limit")
    net, found = load_network(options.model), {}
    for _, photo in (load_held(options.held) if options.held else load_photos())[: options.limit]:
        for sigma in SIGMAS:
            for key, kept in runs(net, centre_crop(photo, options.crop)[None], sigma):
                found.setdefault(key, []).append(kept)
    found = dict(sorted(found.items(), key=lambda item: item[0][0]))
    print(table(found))
    if options.write:
        write_between(RESULTS, "starting", table(found))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
