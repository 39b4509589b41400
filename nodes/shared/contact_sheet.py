"""Images side by side in one picture, each with its label above."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .pictures import to_pil

LARGEST = 4096  # longest side of a sheet in pixels
PAPER, INK = (24, 24, 24), (235, 235, 235)


def contact_sheet(images: Tensor, labels: Sequence[str], columns: int) -> Tensor:
    """[N, H, W, C] and N labels -> [1, H', W', 3], both in [0, 1]. Large images are made smaller to fit."""
    rows = math.ceil(len(labels) / columns)
    height, width = images.shape[1:3]
    scale = min(1, LARGEST / (columns * width), LARGEST / (rows * height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    margin = max(4, width // 40)
    line = max(12, min(48, width // 12))
    font = ImageFont.load_default(line)
    cell = width + margin, height + margin + round(1.6 * line)
    sheet = Image.new("RGB", (columns * cell[0] + margin, rows * cell[1] + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = margin + i % columns * cell[0], margin + i // columns * cell[1]
        draw.text((left + width // 2, top + 0.8 * line), label, INK, font, anchor="mm")
        sheet.paste(to_pil(image, max(width, height)), (left, top + round(1.6 * line)))
    return torch.from_numpy(np.array(sheet)).float()[None] / 255
