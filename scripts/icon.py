"""Draws docs/icon.png and docs/banner.png, which ComfyUI's registry and ComfyUI-Manager show beside the pack's name.

Both show what PiD does: coarse cells, cells a quarter as wide, and then no cells. By code alone; nothing in them is a
model's work. Run as `python scripts/icon.py`, with numpy and Pillow.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from comfy_env import ROOT

ICON, BANNER = 400, (1344, 576)  # the registry's limit for an icon; 21:9
FINER = 4  # PiD's own factor
SMOOTH = 4  # drawn this many times larger, then made smaller
INK, TILE = (20, 20, 30), (30, 30, 44)
LIGHT, WARM, DEEP = np.array([255, 214, 120]), np.array([250, 92, 88]), np.array([78, 52, 190])


def ramp(t: np.ndarray) -> np.ndarray:
    """t [...] in [0, 1] as colours [..., 3] from light over warm to deep."""
    t = np.clip(t, 0, 1)[..., None]
    return np.where(t < 0.5, LIGHT + (WARM - LIGHT) * 2 * t, WARM + (DEEP - WARM) * (2 * t - 1))


def ball(side: int) -> np.ndarray:
    """A lit ball that fills a square, [side, side, 4]: colour and coverage."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    colour = ramp(np.hypot(x + 0.35, y + 0.45) / 1.5)
    return np.dstack([colour, 255.0 * (x**2 + y**2 < 1)])


def cells(picture: np.ndarray, size: int) -> np.ndarray:
    """[H, W, 4] with every cell of size x size in its mean colour; where less than half of it is covered, empty."""
    rows, columns = (length // size for length in picture.shape[:2])
    parts = picture.reshape(rows, size, columns, size, 4)
    cover = parts[..., 3:]
    total = cover.sum((1, 3))
    colour = (parts[..., :3] * cover).sum((1, 3)) / np.maximum(total, 1)
    kept = np.where(total > 255 * size * size / 2, 255.0, 0.0)
    return np.concatenate([colour, kept], -1).repeat(size, 0).repeat(size, 1)


def from_coarse_to_fine(picture: np.ndarray, cell: int, borders: tuple[int, int]) -> Image.Image:
    """Cells up to the first border, finer ones up to the second, the picture itself beyond. Borders in pixels."""
    drawn = picture.copy()
    first, second = borders
    drawn[:, :second] = cells(picture, cell // FINER)[:, :second]
    drawn[:, :first] = cells(picture, cell)[:, :first]
    return Image.fromarray(drawn.round().astype(np.uint8), "RGBA")


def badge(side: int) -> Image.Image:
    """The icon: the ball on a tile with round corners. Six cells make its width, so that 32 pixels show them too."""
    large, wide = SMOOTH * side, SMOOTH * side * 3 // 4
    cell = wide // 6 // FINER * FINER
    wide = 6 * cell
    tile = Image.new("RGBA", (large, large))
    ImageDraw.Draw(tile).rounded_rectangle((0, 0, large - 1, large - 1), large * 0.2, (*TILE, 255))
    figure = from_coarse_to_fine(ball(wide), cell, (3 * cell, 4 * cell + cell // 2))
    tile.alpha_composite(figure, ((large - wide) // 2, (large - wide) // 2))
    return tile.resize((side, side), Image.Resampling.BOX)


def banner() -> Image.Image:
    sheet = Image.new("RGBA", BANNER, (*INK, 255))
    height, side = BANNER[1], 384
    sheet.alpha_composite(badge(side), (96, (height - side) // 2))
    pen = ImageDraw.Draw(sheet)
    left = 96 + side + 72
    pen.text((left - 7, 158), "PiDKit", "white", ImageFont.load_default(150), anchor="lt")
    small = ImageFont.load_default(44)
    pen.text((left + 4, 320), "PiD, the pixel diffusion decoder,", (200, 200, 214), small, anchor="lt")
    pen.text((left + 4, 380), "in ComfyUI: latents to 4K pictures", (200, 200, 214), small, anchor="lt")
    return sheet.convert("RGB")


def main() -> None:
    for picture, name in ((badge(ICON), "icon.png"), (banner(), "banner.png")):
        path = ROOT / "docs" / name
        picture.save(path, optimize=True)
        print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
