"""A photo made four times smaller and restored, beside its original: the README's first picture and the demo's."""

from __future__ import annotations

import sys

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from comfy_env import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks.measures import psnr
from benchmarks.photos import read_photo
from benchmarks.restoration import eight_bits, enlarge, shrink, to_picture

ORIGINAL = ROOT / "docs" / "original.png"
DETAIL_TOP, DETAIL_LEFT, DETAIL = 48, 48, 85  # the part that is shown three times larger
GAP, LINE = 8, 26


def original() -> Tensor:
    """[1, 3, H, W] in [0, 1]."""
    return read_photo(ORIGINAL)[None]


def small_one() -> Tensor:
    """[1, 3, H/4, W/4] in [0, 1], in 8 bits."""
    return eight_bits(shrink(original()))


def detail(picture: Tensor) -> Tensor:
    return picture[..., DETAIL_TOP : DETAIL_TOP + DETAIL, DETAIL_LEFT : DETAIL_LEFT + DETAIL]


def draw(restored: Tensor, steps: int) -> Image.Image:
    """Small, bicubic, restored [1, 3, H, W] and original, below each the detail; with PSNR where one is restored."""
    whole, small = original(), small_one()
    label = f"pid_nano, {steps} step{'s' if steps > 1 else ''}"
    parts = {
        "small": small.repeat_interleave(4, -1).repeat_interleave(4, -2),
        "bicubic": eight_bits(enlarge(small)),
        label: eight_bits(restored),
        "original": whole,
    }
    side = whole.shape[-1]
    sheet = Image.new("RGB", (len(parts) * (side + GAP) - GAP, 2 * (side + LINE)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, (name, picture) in enumerate(parts.items()):
        x, enlarged = index * (side + GAP), to_picture(detail(picture)).resize((side, side), Image.Resampling.NEAREST)
        gains = ["", ""]
        if name in ("bicubic", label):
            pairs = ((picture, whole), (detail(picture), detail(whole)))
            gains = [f", {psnr(*pair):.1f} dB" for pair in pairs]
        pen.text((x, 4), name + gains[0], "black", font)
        sheet.paste(to_picture(picture), (x, LINE))
        pen.text((x, side + LINE + 4), "three times larger" + gains[1], "black", font)
        sheet.paste(enlarged, (x, side + 2 * LINE))
    return sheet


def as_tensor(picture: Image.Image) -> Tensor:
    """[1, 3, H, W] in [0, 1]."""
    pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(1, picture.height, picture.width, 3).movedim(-1, 1).float() / 255
