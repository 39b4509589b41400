"""How well a checkpoint of the `rgb` family restores photos that were made four times smaller, and the bars to pass.

    python -m benchmarks.restoration                    photos for choices
    python -m benchmarks.restoration --held FOLDER      the held photos, which decide (photos.py says how to get them)

Options: [--model FILE] [--limit N] [--crop N] [--out DIR]. Prints Markdown tables and the bars, line by line. With
--out also one PNG per photo: small, bicubic, 1 step, 4 steps and original, and below the middle, three times larger.
With --held and --write the figures go into benchmarks/RESULTS.md and docs/bundled_model.md as well.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.measures import band_power, flat_detail, lattice, mean_gradient, phase_spread, psnr
from benchmarks.photos import load_held, load_photos
from benchmarks.written import RESULTS, write_between
from pid_core import NANO_PATH, decode, degrade, load_network
from pid_core.images.quality import sigma_for_noise
from pid_core.latents.lq_input import prepare_lq
from pid_core.windows.plan import plan_windows

SCALE = 4
NOISE = 0.4
LEVELS = (5, 10, 25)  # of noise that a picture brings along, in 1/255


@dataclass
class Look:
    """One picture beside its original: dB over bicubic, and shares of the original's unless named otherwise."""

    gain: float  # PSNR over bicubic, dB
    gradient: float
    middle: float  # power from 1/4 to 0.4 cycles per pixel
    top: float  # power above 0.4 cycles per pixel
    lattice: float  # 1 where there is none
    spread: float  # over the patch's phases, beyond the original's
    flat: float  # fine detail in the original's quietest quarter
    kept: float  # PSNR to the small picture after shrinking again, dB
    cast: float  # largest change of a channel's mean against bicubic, in 1/255


HEADINGS = ("dB over bicubic", "gradient", "1/4 to 0.4", "above 0.4", "lattice", "phases", "flat", "small kept", "cast")


@dataclass
class Hardships:
    """What else a photo is put through, in dB, with one step: each against bicubic, but `sigma` and `pieces`."""

    jpeg: float  # small picture at quality 75
    light_noise: float  # of 5/255
    sigma: float  # noise of 0.4: sigma 0.4 over sigma 0
    pieces: float  # decoded in windows over the whole in one


def to_latent(small: Tensor) -> Tensor:
    """Image [B, 3, h, w] in [0, 1] -> `rgb` latent [B, 12, h/2, w/2]."""
    return F.pixel_unshuffle(2 * small - 1, 2)


def shrink(image: Tensor) -> Tensor:
    """Four times smaller, bicubic with antialiasing, [B, 3, H, W] in [0, 1]."""
    return F.interpolate(image, scale_factor=1 / SCALE, mode="bicubic", antialias=True).clamp(0, 1)


def enlarge(small: Tensor) -> Tensor:
    """Four times larger, bicubic, [B, 3, h, w] in [0, 1]."""
    return F.interpolate(small, scale_factor=SCALE, mode="bicubic").clamp(0, 1)


def restore(net, latent: Tensor, steps: int, sigma: float = 0.0, **options) -> Tensor:
    """Decode with seed 0 to [B, 3, H, W] in [0, 1]."""
    return decode(net, latent, degrade_sigma=sigma, steps=steps, seed=0, **options).add(1).div(2).float().cpu()


def eight_bits(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def as_jpeg(small: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    to_picture(small).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float() / 255


def to_picture(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy())


def centre_crop(photo: Tensor, most: int) -> Tensor:
    """The middle of [3, H, W], at most `most` pixels a side."""
    height, width = (min(side, most) for side in photo.shape[1:])
    top, left = (photo.shape[1] - height) // 2, (photo.shape[2] - width) // 2
    return photo[:, top : top + height, left : left + width]


def look_at(image: Tensor, original: Tensor, small: Tensor, patch: int) -> Look:
    image, plain = eight_bits(image), eight_bits(enlarge(small))
    return Look(
        psnr(image, original) - psnr(plain, original),
        mean_gradient(image) / mean_gradient(original),
        band_power(image, 0.25, 0.4) / band_power(original, 0.25, 0.4),
        band_power(image, 0.4, 0.5) / band_power(original, 0.4, 0.5),
        max(lattice(image, period) / lattice(original, period) for period in (4, 8)),
        max(phase_spread(image, p) - phase_spread(original, p) for p in {patch, SCALE}),
        flat_detail(image, original),
        psnr(shrink(image), small),
        float((image - plain).mean((0, 2, 3)).abs().max()) * 255,
    )


def endure(net, original: Tensor, small: Tensor) -> Hardships:
    generator = torch.Generator().manual_seed(1)
    noisy = eight_bits(small + 5 / 255 * torch.randn(small.shape, generator=generator))

    def gain(worn: Tensor) -> float:
        return psnr(restore(net, to_latent(worn), 1), original) - psnr(enlarge(worn), original)

    latent = degrade(to_latent(small), NOISE, net.family or "rgb", seed=1)
    right, wrong = (psnr(restore(net, latent, 1, sigma), original) for sigma in (NOISE, 0.0))
    height, width = original.shape[-2:]
    plan = plan_windows(height, width, max(height, width) * 5 // 8, 48, align=net.config.latent_cell)
    pieces, whole = (restore(net, to_latent(small), 1, windows=windows) for windows in (plan, None))
    return Hardships(
        gain(as_jpeg(small, 75)), gain(noisy), right - wrong, psnr(pieces, original) - psnr(whole, original)
    )


def clean_up(net, original: Tensor, small: Tensor) -> list[tuple[float, float]]:
    """dB over the bicubic of the same noisy picture, for each of LEVELS: at sigma 0; at the right one, with `scale`."""
    generator, gains = torch.Generator().manual_seed(2), []
    for level in LEVELS:
        noisy = eight_bits(small + level / 255 * torch.randn(small.shape, generator=generator))
        plain, sigma = psnr(enlarge(noisy), original), sigma_for_noise(level / 255)
        latent = to_latent(noisy)
        scaled = prepare_lq(latent, "rgb", sigma, latent_noise="scale").latent
        ways = (restore(net, latent, 1), restore(net, scaled, 1, sigma))
        gains.append(tuple(psnr(picture, original) - plain for picture in ways))
    return gains


def mean_of(rows: list) -> list[float]:
    """By field: the mean of differences, the geometric mean of shares."""
    means = []
    for f in fields(rows[0]):
        values = np.array([getattr(row, f.name) for row in rows])
        shares = f.name in ("gradient", "middle", "top", "lattice", "flat")
        means.append(float(np.exp(np.log(values).mean()) if shares else values.mean()))
    return means


def table(names: list[str], rows: list, headings: tuple[str, ...]) -> str:
    """Markdown, one line per photo and the mean."""
    lines = ["| photo | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    values = [[getattr(row, f.name) for f in fields(row)] for row in rows]
    for name, row in zip([*names, "**mean**"], [*values, mean_of(rows)], strict=True):
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    return "\n".join(lines)


def verdict(one: list[Look], four: list[Look], hard: list[Hardships], seconds: float) -> str:
    """The bars, line by line."""
    first, last = Look(*mean_of(one)), Look(*mean_of(four))
    checks = []

    def check(what: str, value: float, holds: Callable[[float], bool], form: str = ".2f") -> None:
        checks.append(f"- {'pass' if holds(value) else 'FAIL'}: {what}: {value:{form}}")

    check("1 step, dB over bicubic, mean (at least 1.3)", first.gain, lambda v: v >= 1.3)
    check("1 step, dB over bicubic, worst photo (at least 0.1)", min(r.gain for r in one), lambda v: v >= 0.1)
    check("4 steps, dB over bicubic, mean (at least 0.3)", last.gain, lambda v: v >= 0.3)
    check("4 steps, gradient (0.70 to 1.05)", last.gradient, lambda v: 0.7 <= v <= 1.05)
    check("4 steps, power 1/4 to 0.4 cycles (at least 0.12)", last.middle, lambda v: v >= 0.12)
    check("4 steps, flat parts (0.4 to 1.3)", last.flat, lambda v: 0.4 <= v <= 1.3)
    for steps, mean, rows in ((1, first, one), (4, last, four)):
        unit = f"{steps} step{'s' if steps > 1 else ''}"
        check(f"{unit}, power above 0.4 cycles (at most 1)", mean.top, lambda v: v <= 1)
        check(f"{unit}, lattice (at most 1.5)", mean.lattice, lambda v: v <= 1.5)
        check(f"{unit}, spread over the phases beyond the original's (at most 0.05)", mean.spread, lambda v: v <= 0.05)
        check(
            f"{unit}, small picture kept, worst photo, dB (at least 40)", min(r.kept for r in rows), lambda v: v >= 40
        )
        check(f"{unit}, cast, worst photo, 1/255 (at most 0.8)", max(r.cast for r in rows), lambda v: v <= 0.8)
    jpeg, light, sigma, _ = mean_of(hard)
    check("JPEG at quality 75, dB over bicubic (at least 0)", jpeg, lambda v: v >= 0)
    check("noise of 5/255, dB over bicubic (at least 0)", light, lambda v: v >= 0)
    check(f"noise of {NOISE}: the right sigma over 0, dB (at least 9)", sigma, lambda v: v >= 9)
    check("pieces against the whole, dB (at most 0.05)", max(abs(r.pieces) for r in hard), lambda v: v <= 0.05, ".3f")
    check("CPU seconds per output megapixel, 1 step (at most 5)", seconds, lambda v: v <= 5)
    return "\n".join(checks)


def cpu_seconds(net, side: int = 1024) -> float:
    """Of one step, per megapixel."""
    latent = to_latent(torch.rand(1, 3, side // SCALE, side // SCALE))
    start = time.process_time()
    restore(net, latent, 1)
    return (time.process_time() - start) / (side * side / 1e6)


def strip(pictures: list[Tensor], most: int = 128) -> Image.Image:
    """Pictures [1, 3, H, W] side by side, below them their middles three times larger."""
    top = to_picture(torch.cat(pictures, -1))
    middles = [centre_crop(picture[0], most)[None] for picture in pictures]
    below = to_picture(torch.cat(middles, -1))
    below = below.resize((3 * below.width, 3 * below.height), Image.Resampling.NEAREST)
    whole = Image.new("RGB", (max(top.width, below.width), top.height + below.height))
    whole.paste(top)
    whole.paste(below, (0, top.height))
    return whole


@dataclass
class Report:
    """What was measured, by photo; `noise` as `clean_up` gives it."""

    names: list[str]
    looks: dict[str, list[Look]]
    hard: list[Hardships]
    noise: list[list[tuple[float, float]]]
    seconds: float

    def of_noise(self) -> list[tuple[int, float, float]]:
        means = np.array(self.noise).mean(0)
        return [(level, *map(float, row)) for level, row in zip(LEVELS, means, strict=True)]

    def whole(self) -> str:
        """All tables, and the bars."""
        parts = [f"**{way}**\n\n{table(self.names, rows, HEADINGS)}" for way, rows in self.looks.items()]
        headings = (
            "JPEG 75, dB over bicubic",
            "noise 5/255, dB over bicubic",
            "noise 0.4, sigma 0.4 over 0",
            "pieces, dB",
        )
        parts.append(table(self.names, self.hard, headings))
        lines = ["| noise | sigma 0, dB over bicubic | 2n / (1 + 2n) and `scale`, dB over bicubic |", "|---|---|---|"]
        lines += [f"| {level}/255 | {plain:+.2f} | {right:+.2f} |" for level, plain, right in self.of_noise()]
        parts.append("\n".join(lines))
        parts.append("The bars that were set for it:")
        parts.append(verdict(self.looks["1 step"], self.looks["4 steps"], self.hard, self.seconds))
        return "\n\n".join(parts)

    def short(self) -> str:
        """The few figures that docs/bundled_model.md has."""
        ways = [self.looks[way] for way in ("1 step", "4 steps")]
        gains = [f"{mean_of(rows)[0]:+.2f} ({min(row.gain for row in rows):+.2f})" for rows in ways]
        gradients = [f"{mean_of(rows)[1]:.2f}" for rows in self.looks.values()]
        level, _, right = self.of_noise()[-1]
        noise = f"noise of {level}/255, with its degrade_sigma and `scale`: PSNR over bicubic, dB"
        return "\n".join(
            [
                "| | bicubic | 1 step | 4 steps |",
                "|---|---|---|---|",
                f"| PSNR over bicubic, dB, mean (worst photo) | 0 | {' | '.join(gains)} |",
                f"| mean gradient, relative to the original | {' | '.join(gradients)} |",
                f"| {noise} | 0 | {right:+.2f} | |",
            ]
        )


def measure(net, photos: list[tuple[str, Tensor]], options: argparse.Namespace) -> Report:
    report = Report([name for name, _ in photos], {"Bicubic": [], "1 step": [], "4 steps": []}, [], [], math.nan)
    for name, photo in photos:
        original = centre_crop(photo, options.crop)[None]
        small = eight_bits(shrink(original))
        latent = to_latent(small)
        pictures = (enlarge(small), restore(net, latent, 1), restore(net, latent, 4))
        for rows, image in zip(report.looks.values(), pictures, strict=True):
            rows.append(look_at(image, original, small, net.config.patch_size))
        report.hard.append(endure(net, original, small))
        report.noise.append(clean_up(net, original, small))
        if options.out:
            strip([F.interpolate(small, scale_factor=SCALE), *pictures, original]).save(options.out / f"{name}.png")
    if options.device == "cpu":
        report.seconds = cpu_seconds(net)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Restoration benchmark on photos.")
    parser.add_argument("--model", type=Path, default=NANO_PATH)
    parser.add_argument("--held", type=Path, help="folder with the held photos: measure on those")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--crop", type=int, default=384, help="largest side decoded, in output pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="folder for PNG strips")
    parser.add_argument(
        "--write", action="store_true", help="with --held: figures into RESULTS.md and docs/bundled_model.md"
    )
    options = parser.parse_args()
    if options.write and (not options.held or options.limit):
        parser.error("--write is for all held photos: give --held, and no --limit")
    net = load_network(options.model, device=options.device)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    photos = (load_held(options.held) if options.held else load_photos())[: options.limit]
    report = measure(net, photos, options)
    print(report.whole())
    if options.write:
        write_between(RESULTS, "restoration", report.whole())
        write_between(RESULTS.parents[1] / "docs" / "bundled_model.md", "restoration", report.short())


if __name__ == "__main__":
    main()
