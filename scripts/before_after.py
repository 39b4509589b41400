"""Writes docs/before_after.jpg: a photo made four times smaller and restored by the bundled model, beside its original.

The photo is scikit-image's astronaut (NASA, public domain); the figures in the picture are of the parts shown.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measures import psnr  # noqa: E402
from benchmarks.photos import photo_paths, read_photo  # noqa: E402
from benchmarks.restoration import eight_bits, enlarge, restore, shrink, to_latent, to_picture  # noqa: E402
from pid_core import NANO_PATH, load_network  # noqa: E402

PHOTO = "astronaut"
TOP, LEFT, SIDE = 16, 112, 256  # the part that is shown, in pixels of the original
DETAIL_TOP, DETAIL_LEFT, DETAIL = 48, 48, 85  # the part of it that is shown three times larger
GAP, LINE = 8, 26


def columns() -> list[tuple[str, Tensor]]:
    """(label, [1, 3, SIDE, SIDE]) from left to right."""
    path = next(path for path in photo_paths() if path.stem == PHOTO)
    original = read_photo(path)[None]
    small = eight_bits(shrink(original))
    pictures = {
        "small": small.repeat_interleave(4, -1).repeat_interleave(4, -2),
        "bicubic": enlarge(small),
        "bundled model": restore(load_network(NANO_PATH), to_latent(small), 1),
        "original": original,
    }
    shown = {label: picture[..., TOP : TOP + SIDE, LEFT : LEFT + SIDE] for label, picture in pictures.items()}
    with_psnr = {"bicubic", "bundled model"}
    return [
        (f"{label}, {psnr(picture, shown['original']):.1f} dB" if label in with_psnr else label, picture)
        for label, picture in shown.items()
    ]


def draw(parts: list[tuple[str, Tensor]]) -> Image.Image:
    height = 2 * SIDE + 3 * LINE
    sheet = Image.new("RGB", (len(parts) * (SIDE + GAP) - GAP, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    original = parts[-1][1]
    rows, cols = slice(DETAIL_TOP, DETAIL_TOP + DETAIL), slice(DETAIL_LEFT, DETAIL_LEFT + DETAIL)
    for index, (label, picture) in enumerate(parts):
        x = index * (SIDE + GAP)
        pen.text((x, 4), label, "black", font)
        sheet.paste(to_picture(picture), (x, LINE))
        detail = picture[..., rows, cols]
        text = "three times larger"
        if "dB" in label:
            text += f", {psnr(detail, original[..., rows, cols]):.1f} dB"
        pen.text((x, SIDE + LINE + 4), text, "black", font)
        enlarged = to_picture(detail).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (x, SIDE + 2 * LINE))
    return sheet.crop((0, 0, sheet.width, 2 * SIDE + 2 * LINE))


@torch.no_grad()
def main() -> None:
    picture = draw(columns())
    picture.save(ROOT / "docs" / "before_after.jpg", quality=90, subsampling=0, optimize=True)


if __name__ == "__main__":
    main()
