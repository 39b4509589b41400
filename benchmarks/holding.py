"""What holding every step to the source does: agreement after reduction, sharpness, overshoot; and with noisy sources.

    python -m benchmarks.holding [--held FOLDER] [--model FILE] [--limit N] [--crop N] [--out DIR] [--write]

Each photo, four times smaller, decodes with noise of degrade_sigma added to its latent, and is held to the small photo.
Photos and the held ones' folder: benchmarks/photos.py. --write, with --held, puts the tables into
benchmarks/RESULTS.md; --out saves each photo plain, held, held once behind the last step, bicubic and original.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measures import band_power, mean_gradient, psnr
from benchmarks.photos import load_held, load_photos
from benchmarks.restoration import centre_crop, eight_bits, enlarge, restore, shrink, strip, to_latent
from benchmarks.written import RESULTS, write_between
from pid_core import NANO_PATH, Hold, degrade, load_network
from pid_core.images.quality import grain, sigma_for_noise
from pid_core.latents.lq_input import prepare_lq

SIGMAS = (0.0, 0.2, 0.4)
LEVELS = (5, 10, 25)  # of noise that a source brings along, in 1/255
EDGE = 0.3  # least range of the original within REACH that makes a pixel one of an edge
REACH = 7  # pixels


class Held(NamedTuple):
    source: float  # PSNR to the source after reduction
    original: float  # PSNR to the original
    gradient: float  # mean gradient, a share of the plain decode's
    fine: float  # power from 1/4 to 0.4 cycles per pixel, a share of the plain decode's
    overshoot: float  # mean over pixels at edges, 1/255
    worst: float  # of one edge pixel in a thousand, 1/255


def overshoot(image: Tensor, original: Tensor) -> tuple[float, float]:
    """How far pixels at edges lie beyond all of the original around them, in 1/255: the mean, and of one in 1000."""
    high, low = (sign * F.max_pool2d(sign * original, REACH, 1, REACH // 2) for sign in (1, -1))
    beyond = ((image - high).clamp_min(0) + (low - image).clamp_min(0))[high - low > EDGE] * 255
    return float(beyond.mean()), float(beyond.kthvalue(max(1, int(0.999 * beyond.numel()))).values)


def look_at(image: Tensor, plain: Tensor, original: Tensor, small: Tensor) -> Held:
    return Held(
        psnr(shrink(image), small),
        psnr(image, original),
        mean_gradient(image) / mean_gradient(plain),
        band_power(image, 0.25, 0.4) / band_power(plain, 0.25, 0.4),
        *overshoot(image.clamp(0, 1), original),
    )


def decodes(net, original: Tensor, sigma: float, steps: int) -> dict[str, Tensor]:
    """Without, with it at every step, with it behind the last step only."""
    small = eight_bits(shrink(original))
    latent = degrade(to_latent(small), sigma, net.family or "rgb", seed=1) if sigma else to_latent(small)
    hold = Hold(2 * small - 1, noise=[2 * grain(small[0].movedim(0, -1))])
    plain = restore(net, latent, steps, sigma)
    once = (hold.apply_(2 * plain - 1, 0.0) + 1) / 2
    return {"no hold": plain, "hold": restore(net, latent, steps, sigma, hold=hold), "once, at the end": once}


def noisy_row(net, original: Tensor, level: int, steps: int) -> tuple[float, ...]:
    """PSNR to the original from a noisy source, its noise told by degrade_sigma and `scale`.

    Without hold; held, with the source's noise measured; held as if it had none.
    """
    generator = torch.Generator().manual_seed(2)
    small = shrink(original)
    noisy = eight_bits(small + level / 255 * torch.randn(small.shape, generator=generator))
    sigma = sigma_for_noise(level / 255)
    latent = prepare_lq(to_latent(noisy), "rgb", sigma, latent_noise="scale").latent
    reference, noise = 2 * noisy - 1, 2 * grain(noisy[0].movedim(0, -1))
    holds = (None, Hold(reference, noise=[noise]), Hold(reference))
    return tuple(psnr(restore(net, latent, steps, sigma, hold=hold), original) for hold in holds)


def table(found: dict[tuple, list[Held]], bicubic: list[Held]) -> str:
    lines = [
        "| degrade_sigma | steps | | reduced, to the source, dB, mean (worst photo) | to the original, dB | gradient, "
        "share, mean (least) | 1/4 to 0.4 cycles, share | overshoot, 1/255, mean | of one edge pixel in 1000 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (sigma, steps, way), rows in found.items():
        mean, least = np.array(rows).mean(0), np.array(rows).min(0)
        lines.append(
            f"| {sigma:g} | {steps} | {way} | {mean[0]:.1f} ({least[0]:.1f}) | {mean[1]:.2f} | {mean[2]:.3f} "
            f"({least[2]:.3f}) | {mean[3]:.3f} | {mean[4]:.2f} | {mean[5]:.1f} |"
        )
    mean, least = np.array(bicubic).mean(0), np.array(bicubic).min(0)
    ends = f"{mean[0]:.1f} ({least[0]:.1f}) | {mean[1]:.2f} | | | {mean[4]:.2f} | {mean[5]:.1f} |"
    lines.append(f"| | | the source, enlarged (bicubic) | {ends}")
    return "\n".join(lines)


def noise_table(found: dict[int, list[tuple[float, ...]]]) -> str:
    lines = [
        "| noise of the source | no hold, dB to the original | held, noise measured | held, noise not counted |",
        "|---|---|---|---|",
    ]
    for level, rows in found.items():
        lines.append(f"| {level}/255 | " + " | ".join(f"{value:.2f}" for value in np.array(rows).mean(0)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Decodes that are held to their source at every step.")
    parser.add_argument("--model", type=Path, default=NANO_PATH)
    parser.add_argument("--held", type=Path, help="folder with the held photos: measure on those")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--crop", type=int, default=384, help="largest side decoded, in output pixels")
    parser.add_argument("--out", type=Path, help="folder for PNG strips")
    parser.add_argument("--write", action="store_true", help="with --held: the tables into RESULTS.md")
    options = parser.parse_args()
    if options.write and (not options.held or options.limit):
        parser.error("--write is for all held photos: give --held, and no --limit")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    net, found, noisy, plain = load_network(options.model), {}, {}, []
    for name, photo in (load_held(options.held) if options.held else load_photos())[: options.limit]:
        original = centre_crop(photo, options.crop)[None]
        small = eight_bits(shrink(original))
        for sigma in SIGMAS:
            for steps in (1, 4):
                images = decodes(net, original, sigma, steps)
                for way, image in images.items():
                    looked = look_at(image, images["no hold"], original, small)
                    found.setdefault((sigma, steps, way), []).append(looked)
            if options.out:
                strip([*images.values(), enlarge(small), original]).save(options.out / f"{name}_{sigma:g}.png")
        plain.append(look_at(enlarge(small), original, original, small))
        for level in LEVELS:
            noisy.setdefault(level, []).append(noisy_row(net, original, level, 1))
    text = f"{table(found, plain)}\n\n{noise_table(noisy)}"
    print(text)
    if options.write:
        write_between(RESULTS, "holding", text)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
