"""What a sigma map keeps of a photo that is noised in its left half only, with the bundled model in one step.

    python -m benchmarks.sigma_map --held FOLDER [--limit N] [--out DIR]

The middle of each photo is made four times smaller (8 bits), its left half noised, and decoded with `scale` and a mask
over the noised half, with several feathers, which lie on the clean half; "all" is that picture with the right sigma all
over, which is no border at all. Halves are compared, in dB to the original, with the whole photo noised at the right
sigma and with the whole one clean at 0. Gradients are those across four columns at the border, or across the whole
ramp, relative to the mean of both uniform decodes at the same columns. Two decodes are not equally sharp, so that this
is not 1 where there is no border either: a line below each table tells what the uniform decodes get at other columns. A
gradient's mean tells little of a faint line that goes through the whole picture: "sharpest" is the largest step from
one column to the next, of means over 16 rows, from the border to the ramp's end, again relative to both. With --out
also a picture per photo: sigma everywhere, the border at each feather, and the clean one, three times larger.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.measures import psnr
from benchmarks.photos import load_held, load_photos
from benchmarks.restoration import centre_crop, eight_bits, restore, shrink, to_latent, to_picture
from pid_core import NANO_PATH, load_network
from pid_core.images.quality import sigma_for_noise
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.sigma_map import SigmaMap, SigmaMask
from pid_core.windows.plan import plan_windows

SIDE = 512  # pixels of the original's middle
MIDDLE = SIDE // 2
LEVELS = (25, 55)  # of the noise, in 1/255
FEATHERS = (0, 16, 32, 64, 128)
CELL = 8  # pixels of a latent cell
SHOWN = 2  # of FEATHERS, told for each photo
FORMS = ("+.2f",) * 3 + (".2f",) * 3
ROWS = 16  # that a step is averaged over
COLUMNS = [c for c in range(64, SIDE - 96, CELL) if abs(c - MIDDLE) > 48]
HEADINGS = ("left, dB", "right, dB", "right beyond the feather, dB", "at the border", "over the ramp", "sharpest")


def across(picture: Tensor, begin: int, end: int) -> float:
    """Mean step from a column to the next, over the columns from begin to end."""
    return float(picture[..., begin:end].diff(dim=-1).abs().mean())


class Uniform:
    """A photo's two uniform decodes: noisy at the right sigma, and clean at 0."""

    def __init__(self, original: Tensor, noisy: Tensor, clean: Tensor) -> None:
        self.original, self.noisy, self.clean = original, noisy, clean

    def relative(self, picture: Tensor, begin: int, end: int) -> float:
        return across(picture, begin, end) / np.mean([across(one, begin, end) for one in (self.noisy, self.clean)])

    def at(self, picture: Tensor, column: int) -> float:
        return self.relative(picture, column - 2, column + 2)

    def sharpest(self, picture: Tensor, column: int, reach: int = 32) -> float:
        found, *both = (
            F.avg_pool2d(one[..., column - CELL : column + reach + 2 * CELL].diff(dim=-1), (ROWS, 1))
            .abs()
            .mean((0, 1, 2))
            for one in (picture, self.noisy, self.clean)
        )
        return float((2 * found / (both[0] + both[1])).max())

    def figures(self, found: Tensor, feather: int) -> tuple[float, ...]:
        """In the order of HEADINGS."""

        def lost(against: Tensor, columns: slice) -> float:
            return psnr(found[..., columns], self.original[..., columns]) - psnr(
                against[..., columns], self.original[..., columns]
            )

        return (
            lost(self.noisy, slice(MIDDLE)),
            lost(self.clean, slice(MIDDLE, None)),
            lost(self.clean, slice(MIDDLE + feather + CELL, None)),
            self.at(found, MIDDLE),
            self.relative(found, MIDDLE - 2, MIDDLE + feather + 2),
            self.sharpest(found, MIDDLE, feather),
        )


def measure(net, photo: Tensor, level: int) -> tuple[np.ndarray, np.ndarray, list[Tensor]]:
    """Figures [whole and windows, all and feathers, headings], the uniform decodes' at other columns, and pictures."""
    original = centre_crop(photo, SIDE)[None]
    clean, sigma = eight_bits(shrink(original)), sigma_for_noise(level / 255)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    noisy = eight_bits(clean + level / 255 * noise)
    half = clean.shape[-1] // 2
    mixed = torch.cat([noisy[..., :half], clean[..., half:]], -1)
    mask = (torch.arange(2 * half) < half).float().expand(1, 2 * half, -1)
    rows, shown = [], []
    for plan in (None, plan_windows(SIDE, SIDE, 256, 64, align=net.config.latent_cell)):

        def drawn(small: Tensor, level: float | SigmaMap, plan=plan) -> Tensor:
            lq = prepare_lq(to_latent(small), "rgb", level, latent_noise="scale")
            return restore(net, lq.latent, 1, lq.sigma, windows=plan)

        uniform = Uniform(original, drawn(noisy, sigma), drawn(clean, 0.0))
        maps = [SigmaMap((0.0,), (SigmaMask(mask, sigma, feather),)) for feather in FEATHERS]
        found = [drawn(mixed, one) for one in (sigma, *maps)]
        rows.append([uniform.figures(*pair) for pair in zip(found, (0, *FEATHERS), strict=True)])
        shown = shown or [uniform.noisy, *found[1:], uniform.clean]
    pairs = [(one, column) for one in (uniform.noisy, uniform.clean) for column in COLUMNS]
    return np.array(rows), np.array([[way(*pair) for pair in pairs] for way in (uniform.at, uniform.sharpest)]), shown


def strip(pictures: list[Tensor]) -> Image.Image:
    """The border side by side, three times larger."""
    rows, columns = slice(MIDDLE - 64, MIDDLE + 64), slice(MIDDLE - 48, MIDDLE + 80)
    row = to_picture(torch.cat([one[..., rows, columns] for one in pictures], -1))
    return row.resize((3 * row.width, 3 * row.height), Image.Resampling.NEAREST)


def print_table(heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    print("\n| " + " | ".join((*heads, *HEADINGS)) + " |\n|" + "---|" * (len(heads) + len(HEADINGS)))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def over_photos(values: np.ndarray) -> list[str]:
    """[photos, headings] -> median (least to most)."""
    return [
        f"{np.median(v):{form}} ({v.min():{form}} to {v.max():{form}})" for v, form in zip(values.T, FORMS, strict=True)
    ]


def report(level: int, names: list[str], values: np.ndarray, elsewhere: np.ndarray) -> None:
    """values [photos, whole and windows, all and feathers, headings]; elsewhere [2, columns of all photos]."""
    print(
        f"\n**Noise of {level}/255, sigma {sigma_for_noise(level / 255):.2f}**: median (least to most) over the photos"
    )
    print_table(
        ("feather", "decoded"),
        [
            (feather, way, *over_photos(values[:, w, f]))
            for f, feather in enumerate(("all", *FEATHERS))
            for w, way in enumerate(("whole", "in windows"))
        ],
    )
    low, high = np.quantile(elsewhere, (0.05, 0.95), axis=1)
    print(
        f"\nThe uniform decodes at other columns, nine of ten: {low[0]:.2f} to {high[0]:.2f} like at the border, "
        f"{low[1]:.2f} to {high[1]:.2f} the sharpest.\n\nEach photo, whole, feather {FEATHERS[SHOWN]}:"
    )
    own = values[:, 0, 1 + SHOWN]
    lines = [[f"{v:{form}}" for v, form in zip(row, FORMS, strict=True)] for row in own]
    print_table(("photo",), [(name, *line) for name, line in zip(names, lines, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--held", type=Path, help="folder of benchmarks/photos.py's held photos; else those for choices"
    )
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--out", type=Path, help="folder for pictures")
    args = parser.parse_args()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    net = load_network(NANO_PATH)
    photos = (load_held(args.held) if args.held else load_photos())[: args.limit]
    for level in LEVELS:
        measured = []
        for name, photo in photos:
            figures, others, pictures = measure(net, photo, level)
            measured.append((figures, others))
            if args.out:
                strip(pictures).save(args.out / f"{name}_{level}.png")
        values, elsewhere = zip(*measured, strict=True)
        report(level, [name for name, _ in photos], np.array(values), np.concatenate(elsewhere, 1))


if __name__ == "__main__":
    main()
