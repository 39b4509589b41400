"""A lighthouse at dawn, drawn by code: what the example workflows' text asks for, for pictures of what they make."""

from __future__ import annotations

import colorsys
import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

SMOOTH = 3  # drawn so many times as large, then made smaller


def lighthouse(side: int, hue: float) -> Image.Image:
    """side x side pixels. hue: 0 to 1, turns the dawn's colours so that several pictures can be told apart."""
    size = side * SMOOTH
    picture = _sky(size, hue)
    _sea(picture, hue)
    _light(picture)
    _rocks(picture, hue)
    _tower(picture)
    _gulls(picture)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def _colour(hue: float, turn: float, saturation: float, value: float) -> tuple[int, int, int]:
    # a fifth of the circle, so that it stays a dawn
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb((turn + (hue - 0.5) / 5) % 1, saturation, value))


def _sky(size: int, hue: float) -> Image.Image:
    column = Image.new("RGB", (1, 256))
    top, low = _colour(hue, 0.62, 0.65, 0.45), _colour(hue, 0.08, 0.5, 0.98)
    for y in range(256):
        t = min(1.0, y / 165) ** 1.3
        column.putpixel((0, y), tuple(round(a + (b - a) * t) for a, b in zip(top, low, strict=True)))
    sky = column.resize((size, size), Image.Resampling.BICUBIC)
    pen, chance = ImageDraw.Draw(sky), random.Random(3)
    for _ in range(9):  # thin clouds
        x, y = chance.random() * size, (0.15 + 0.4 * chance.random()) * size
        width = (0.1 + 0.2 * chance.random()) * size
        shade = _colour(hue, 0.05, 0.35, 0.75 + 0.2 * chance.random())
        pen.ellipse((x - width, y - width / 22, x + width, y + width / 22), shade)
    return sky.filter(ImageFilter.GaussianBlur(size / 160))


def _sea(picture: Image.Image, hue: float) -> None:
    size, pen, chance = picture.width, ImageDraw.Draw(picture), random.Random(5)
    pen.rectangle((0, 0.66 * size, size, size), _colour(hue, 0.58, 0.55, 0.42))
    for i in range(260):
        t = i / 260
        y = (0.665 + 0.33 * t**1.5) * size
        x, width = chance.random() * size, (0.015 + 0.07 * t) * size
        tone = _colour(hue, 0.1 if chance.random() < 0.35 else 0.55, 0.35, 0.55 + 0.35 * chance.random())
        pen.arc((x - width, y - width / 5, x + width, y + width / 5), 200, 340, tone, max(2, round(width / 14)))


def _light(picture: Image.Image) -> None:
    size = picture.width
    beam = Image.new("L", picture.size)
    pen, lamp = ImageDraw.Draw(beam), (0.68 * size, 0.235 * size)
    for angle in (186, 171):
        a, b = math.radians(angle - 4), math.radians(angle + 4)
        far = [(lamp[0] + 2 * size * math.cos(t), lamp[1] - 2 * size * math.sin(t)) for t in (a, b)]
        pen.polygon([lamp, *far], 90)
    pen.ellipse((lamp[0] - size / 14, lamp[1] - size / 14, lamp[0] + size / 14, lamp[1] + size / 14), 230)
    beam = beam.filter(ImageFilter.GaussianBlur(size / 50))
    warm = Image.new("RGB", picture.size, (255, 232, 170))
    picture.paste(Image.composite(ImageChops.screen(picture, warm), picture, beam))


def _rocks(picture: Image.Image, hue: float) -> None:
    size, pen, chance = picture.width, ImageDraw.Draw(picture), random.Random(11)
    for layer in range(5):
        base, rough = 0.7 + 0.06 * layer, 0.05 + 0.01 * layer
        points = [(size, size), (0.3 * size + 0.04 * layer * size, size)]
        for i in range(15):
            t = i / 14
            rise = math.sin(math.pi * min(1, 0.15 + t)) * (0.13 - 0.02 * layer)
            y = base - rise + rough * (chance.random() - 0.5)
            points.append(((0.4 + 0.03 * layer + (0.62 - 0.03 * layer) * t) * size, y * size))
        pen.polygon(points, _colour(hue, 0.6, 0.3, 0.34 - 0.05 * layer))
    for _ in range(160):  # light on their edges
        x, y = (0.45 + 0.55 * chance.random()) * size, (0.68 + 0.3 * chance.random()) * size
        length = (0.008 + 0.02 * chance.random()) * size
        pen.line((x, y, x + length, y + length * 0.4), _colour(hue, 0.07, 0.3, 0.5), max(2, size // 500))


def _tower(picture: Image.Image) -> None:
    size, pen = picture.width, ImageDraw.Draw(picture)
    top, foot, half_top, half_foot = 0.28, 0.66, 0.036, 0.06

    def half(t: float) -> float:
        return half_top + (half_foot - half_top) * t

    for i in range(7):
        a, b = i / 7, (i + 1) / 7
        for part in range(24):  # round: darker to the right
            left, right = (2 * part / 24 - 1, 2 * (part + 1) / 24 - 1)
            shade = 1 - 0.45 * max(0.0, (left + 1) / 2) ** 1.4
            plain = (214, 64, 54) if i % 2 else (248, 240, 226)
            corners = [
                (0.68 + side * half(t), top + (foot - top) * t)
                for t, side in ((a, left), (a, right), (b, right), (b, left))
            ]
            pen.polygon([(x * size, y * size) for x, y in corners], tuple(round(c * shade) for c in plain))
    for row in (0.38, 0.47, 0.56):
        pen.rectangle([v * size for v in (0.668, row, 0.682, row + 0.026)], (255, 214, 120), (60, 50, 60), size // 300)
    pen.rectangle([v * size for v in (0.63, 0.268, 0.73, 0.284)], (52, 46, 58))
    pen.rectangle([v * size for v in (0.652, 0.205, 0.708, 0.27)], (255, 240, 190), (52, 46, 58), size // 150)
    pen.line([v * size for v in (0.68, 0.205, 0.68, 0.27)], (52, 46, 58), size // 200)
    pen.polygon([(x * size, y * size) for x, y in ((0.642, 0.206), (0.718, 0.206), (0.68, 0.158))], (150, 42, 40))


def _gulls(picture: Image.Image) -> None:
    size, pen = picture.width, ImageDraw.Draw(picture)
    for x, y, wing in ((0.2, 0.3, 0.035), (0.3, 0.24, 0.025), (0.38, 0.36, 0.03), (0.86, 0.2, 0.022)):
        for sign in (-1, 1):
            box = sorted((x, x + sign * wing))
            pen.arc(
                (box[0] * size, (y - wing / 3) * size, box[1] * size, (y + wing / 2) * size),
                190,
                350,
                (40, 38, 50),
                size // 200,
            )
