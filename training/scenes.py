"""Training pictures made by code: dead leaves, textures, vegetation, buildings, text, line art, smooth gradients.

Every scene is drawn at twice its size and halved at the end, so edges are antialiased as a lens would do it.
"""

from __future__ import annotations

import string
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .textures import fractal, patch

Rng = np.random.Generator
GREY = np.array([0.30, 0.59, 0.11], np.float32)
KINDS = {  # scenes : textures : text and plants about 3 : 2 : 1
    "leaves": 0.25,
    "smooth": 0.06,
    "buildings": 0.06,
    "mixed": 0.10,
    "texture": 0.34,
    "text": 0.07,
    "lines": 0.04,
    "plants": 0.08,
}


def scene(rng: Rng, size: int = 384) -> np.ndarray:
    """One picture, uint8 [size, size, 3]; `size` is at most 512."""
    side = 2 * size
    colours = palette(rng)
    canvas = background(rng, side, colours)
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    if kind not in ("smooth", "texture") and rng.random() < 0.6:
        canvas += texture_contrast(rng) * patch(rng, side, side, zoom=rng.choice((0.7, 1.0, 1.3)))[..., None]
    if kind == "smooth":
        smooth_shapes(rng, canvas, colours)
    elif kind == "texture":
        surface(rng, canvas, colours)
    elif kind == "leaves":
        leaves(rng, canvas, colours)
    else:
        if rng.random() < 0.6:
            leaves(rng, canvas, colours, fewer=rng.choice((1, 4)))
            canvas = maybe_blur(rng, canvas, 0.25)
        everything = np.array([branches, grass, facade, text, line_art])
        single = {"plants": (branches, grass), "buildings": (facade,), "text": (text,), "lines": (line_art,)}
        chosen = single.get(kind) or rng.permutation(everything)[:2]
        for overlay in chosen:
            overlay(rng, canvas, colours)
        if kind in ("buildings", "mixed") and rng.random() < 0.5:
            leaves(rng, canvas, colours, fewer=8)
    return finish(rng, canvas)


# --- Colour ---


def palette(rng: Rng) -> np.ndarray:
    """A few related colours, float32 [n, 3] in [0, 1], from dark to light and mostly muted."""
    count = int(rng.integers(3, 9))
    hue = (rng.uniform() + rng.normal(0, rng.choice((0.04, 0.12, 0.4)), count)) % 1
    saturation = np.clip(rng.beta(1.3, 2.2, count) * rng.choice((0.3, 1.0, 1.3)), 0, 1)
    value = np.linspace(rng.uniform(0.03, 0.3), rng.uniform(0.6, 1.0), count)
    ramp = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return (value[:, None] * (1 - saturation[:, None] * (1 - np.clip(ramp, 0, 1)))).astype(np.float32)


def pick(rng: Rng, colours: np.ndarray) -> np.ndarray:
    """One palette colour with a little of its own, float32 [3]."""
    colour = colours[rng.integers(len(colours))] * rng.uniform(0.75, 1.25) + rng.normal(0, 0.03, 3)
    return np.clip(colour, 0, 1).astype(np.float32)


def ink(colour: np.ndarray) -> tuple[int, int, int]:
    return tuple(int(255 * v) for v in np.clip(colour, 0, 1))


# --- Backgrounds and smooth parts ---


@lru_cache(maxsize=4)
def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row coordinates in [-1, 1], float32 [side, side] each."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    return np.broadcast_to(axis, (side, side)), np.broadcast_to(axis[:, None], (side, side))


def background(rng: Rng, side: int, colours: np.ndarray) -> np.ndarray:
    """A gradient between two colours, at times with a broad cloud; float32 [side, side, 3]."""
    x, y = grid(side)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = 0.5 + 0.35 * (np.cos(angle) * x + np.sin(angle) * y) * rng.uniform(0, 1.4)
    if rng.random() < 0.3:
        ramp = ramp + rng.uniform(-0.6, 0.6) * np.hypot(x - rng.normal(), y - rng.normal())
    if rng.random() < 0.4:
        ramp = ramp + rng.uniform(0.03, 0.25) * broad_noise(rng, side)
    first, second = pick(rng, colours), pick(rng, colours)
    return first + ramp[..., None] * (second - first)


def broad_noise(rng: Rng, side: int) -> np.ndarray:
    """Noise with no detail below about 20 pixels, [side, side], std about 1."""
    coarse = fractal(rng, rng.uniform(1.2, 2.2), size=64)[:40, :40]
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def smooth_shapes(rng: Rng, canvas: np.ndarray, colours: np.ndarray) -> None:
    """Skies, walls, skin: soft blobs, and now and then one clean edge."""
    for _ in range(rng.integers(0, 6)):
        leaf(
            rng,
            canvas,
            colours,
            radius=rng.uniform(0.1, 0.6) * len(canvas),
            softness=rng.uniform(20, 120),
            plain=True,
        )
    for _ in range(rng.integers(0, 4)):
        leaf(
            rng,
            canvas,
            colours,
            radius=rng.uniform(0.05, 0.7) * len(canvas),
            softness=rng.uniform(1, 4),
            plain=True,
        )


# --- Surfaces ---


def surface(rng: Rng, canvas: np.ndarray, colours: np.ndarray) -> None:
    """One or two textures over the whole picture, of a strength that changes from place to place."""
    side = len(canvas)
    for _ in range(rng.integers(1, 3)):
        tone = patch(rng, side, side, zoom=rng.uniform(0.35, 1.3))
        where = 1 / (1 + np.exp(-3 * (broad_noise(rng, side) + rng.normal(0, 0.7))))
        tint = pick(rng, colours) - pick(rng, colours) if rng.random() < 0.5 else 0.3 + pick(rng, colours)
        canvas += (texture_contrast(rng) * 1.5 * where * tone)[..., None] * tint
    if rng.random() < 0.3:
        for channel in range(3):
            canvas[..., channel] += 0.3 * texture_contrast(rng) * patch(rng, side, side, zoom=rng.uniform(0.35, 1.3))


# --- Dead leaves ---


def leaves(rng: Rng, canvas: np.ndarray, colours: np.ndarray, fewer: int = 1) -> None:
    """Opaque shapes with power-law radii (density r^-3), mostly large ones behind small ones."""
    side = len(canvas)
    count = int(rng.choice((60, 200, 500, 1000), p=(0.25, 0.3, 0.25, 0.2))) // fewer
    smallest, largest = rng.choice((3, 5, 9)) * 1.0, side * rng.uniform(0.25, 0.6)
    radii = (smallest**-2 - rng.uniform(size=count) * (smallest**-2 - largest**-2)) ** -0.5
    big = rng.uniform(0.08, 0.45, 8 // min(fewer, 4)) * side
    radii = np.concatenate([big, radii])
    order = np.argsort(-radii * np.exp(rng.normal(0, 0.5, len(radii))))
    textured, plain = rng.uniform(0.5, 1), rng.random() < 0.1
    focus = int(rng.uniform(0.1, 0.5) * len(radii)) if rng.random() < 0.25 else -1
    for rank, radius in enumerate(radii[order]):
        if rank == focus:
            canvas[...] = blur(canvas, rng.uniform(1.5, 8))
        softness = rng.uniform(8, 30) if rng.random() < 0.05 else rng.choice((1.0, 2.0, 4.0), p=(0.6, 0.3, 0.1))
        leaf(rng, canvas, colours, radius, softness, plain=plain or rng.random() > textured)


def leaf(
    rng: Rng, canvas: np.ndarray, colours: np.ndarray, radius: float, softness: float, plain: bool = False
) -> None:
    """One filled shape at a random place; `softness` is the width of its edge in canvas pixels."""
    side = len(canvas)
    cx, cy = rng.uniform(-0.1, 1.1, 2) * side
    angle = rng.uniform(0, np.pi)
    kind = rng.choice(("ellipse", "polygon", "bar", "rectangle"), p=(0.42, 0.33, 0.15, 0.10))
    flat = {"ellipse": rng.uniform(0.35, 1), "polygon": 1.0, "bar": rng.uniform(0.02, 0.15)}.get(
        kind, rng.uniform(0.3, 1)
    )
    long = radius * (2.2 if kind == "bar" else 1)
    short = max(long * flat, 1.5)
    c, s = np.cos(angle), np.sin(angle)
    reach_x, reach_y = np.hypot(long * c, short * s), np.hypot(long * s, short * c)
    if kind in ("bar", "rectangle"):
        reach_x, reach_y = abs(long * c) + abs(short * s), abs(long * s) + abs(short * c)
    x0, x1 = int(max(0, cx - reach_x - softness)), int(min(side, cx + reach_x + softness + 1))
    y0, y1 = int(max(0, cy - reach_y - softness)), int(min(side, cy + reach_y + softness + 1))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    dx = np.arange(x0, x1, dtype=np.float32) - np.float32(cx)
    dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(cy))[:, None]
    u, v = (dx * c + dy * s) / np.float32(long), (dy * c - dx * s) / np.float32(short)
    if kind == "ellipse":
        distance = (1 - np.sqrt(u * u + v * v)) * np.float32(short)
    elif kind == "polygon":
        distance = convex(rng, u, v) * np.float32(radius)
    else:
        distance = np.minimum((1 - np.abs(u)) * np.float32(long), (1 - np.abs(v)) * np.float32(short))
    mask = np.clip(distance / softness + 0.5, 0, 1)[..., None]
    tone = shade(rng, u, v, radius, plain)
    colour = pick(rng, colours)
    tint = (0.35 + 0.9 * colour) * (1 + rng.normal(0, 0.08, 3).astype(np.float32))
    box = canvas[y0:y1, x0:x1]
    box += mask * (colour + tone[..., None] * tint.astype(np.float32) - box)


def convex(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the inside of a convex polygon of 3 to 7 sides within the unit disc."""
    sides = int(rng.integers(3, 8))
    angles = np.sort(rng.uniform(0, 2 * np.pi / sides, sides) * 0.8 + np.arange(sides) * 2 * np.pi / sides)
    inside = 1 - np.hypot(u, v)
    for angle, offset in zip(angles, rng.uniform(0.45, 0.9, sides), strict=True):
        np.minimum(
            inside,
            np.float32(offset) - np.float32(np.cos(angle)) * u - np.float32(np.sin(angle)) * v,
            out=inside,
        )
    return inside


def shade(rng: Rng, u: np.ndarray, v: np.ndarray, radius: float, plain: bool) -> np.ndarray:
    """Light and texture over one shape, [h, w], 0 where it keeps its own colour."""
    tone = np.float32(rng.normal(0, 0.18)) * u + np.float32(rng.normal(0, 0.18)) * v
    if rng.random() < 0.4:
        tone -= np.float32(rng.uniform(0, 0.25)) * (u * u + v * v)
    if plain:
        return tone
    contrast = texture_contrast(rng)
    if rng.random() < 0.15:
        return tone + contrast * stripes(rng, u, v, radius)
    return tone + contrast * patch(rng, *u.shape, zoom=rng.choice((0.7, 1.0, 1.5, 2.0, 3.0)))


def texture_contrast(rng: Rng) -> np.float32:
    """Standard deviation of a surface's texture, of the range [0, 1]."""
    return np.float32(min(0.35, rng.lognormal(np.log(0.13), 0.7)))


def stripes(rng: Rng, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """A grating, smooth or hard, with periods from 6 canvas pixels up."""
    period = rng.uniform(6, max(12, radius / 2)) / radius
    angle = rng.uniform(0, np.pi)
    wave = np.sin((2 * np.pi / period * (np.cos(angle) * u + np.sin(angle) * v)).astype(np.float32))
    return np.clip(rng.choice((1, 3, 12)) * wave, -1, 1) * 1.5


# --- Overlays ---


def paint(canvas: np.ndarray, mask: Image.Image, fill: np.ndarray) -> None:
    """Lays `fill` ([3] or [side, side, 3]) over the canvas through a mask drawn at twice its size."""
    alpha = np.asarray(mask.reduce(2), np.float32)[..., None] / 255
    canvas += alpha * (fill - canvas)


def mask_like(canvas: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", (2 * canvas.shape[1], 2 * canvas.shape[0]), 0)
    return mask, ImageDraw.Draw(mask)


def branches(rng: Rng, canvas: np.ndarray, colours: np.ndarray) -> None:
    """Trees that fork, with or without leaves at the tips."""
    side = 2 * len(canvas)
    wood_mask, wood_draw = mask_like(canvas)
    leaf_mask, leaf_draw = mask_like(canvas)
    leaf_size = rng.uniform(3, 20) if rng.random() < 0.6 else 0
    stack = []
    for _ in range(rng.integers(1, 4)):
        start = (rng.uniform(0, side), side * rng.uniform(0.7, 1.05))
        stack.append((*start, rng.normal(-np.pi / 2, 0.3), side * rng.uniform(0.12, 0.3), rng.uniform(8, 50)))
    drawn = 0
    while stack and drawn < 900:
        x, y, angle, length, width = stack.pop(0)
        ex, ey = x + length * np.cos(angle), y + length * np.sin(angle)
        wood_draw.line([(x, y), (ex, ey)], fill=255, width=max(1, round(width)))
        drawn += 1
        if length < side * 0.012 or width < 1:
            if leaf_size:
                for _ in range(3):
                    px, py = ex + rng.normal(0, 2 * leaf_size), ey + rng.normal(0, 2 * leaf_size)
                    a, b = leaf_size * rng.uniform(0.4, 1.5, 2)
                    leaf_draw.ellipse([px - a, py - b, px + a, py + b], fill=255)
            continue
        for _ in range(rng.integers(2, 4)):
            turn = angle + rng.normal(0, 0.45)
            stack.append((ex, ey, turn, length * rng.uniform(0.6, 0.9), width * rng.uniform(0.5, 0.75)))
    texture = 1 + 0.25 * patch(rng, *canvas.shape[:2], zoom=1.0)[..., None]
    paint(canvas, wood_mask, pick(rng, colours) * texture)
    if leaf_size:
        paint(canvas, leaf_mask, pick(rng, colours) * texture[::-1])


def grass(rng: Rng, canvas: np.ndarray, colours: np.ndarray) -> None:
    """Many thin blades of graded colours: grass, hair, reeds."""
    side = 2 * len(canvas)
    mask, draw = mask_like(canvas)
    light, light_draw = mask_like(canvas)
    lean, spread = rng.normal(-np.pi / 2, 0.5), rng.uniform(0.05, 0.4)
    horizon, reach, thick = side * rng.uniform(0.2, 0.8), side * rng.uniform(0.05, 0.25), rng.uniform(1.5, 8)
    for root in np.sort(rng.uniform(horizon, side * 1.1, int(rng.integers(150, 900)))):
        x, angle = rng.uniform(0, side), lean + spread * rng.standard_normal()
        bend = angle + rng.normal(0, 0.25)
        length = reach * rng.uniform(0.4, 1.2)
        mid = (x + length * np.cos(angle), root + length * np.sin(angle))
        tip = (mid[0] + length * np.cos(bend), mid[1] + length * np.sin(bend))
        width = max(1, round(thick * rng.uniform(0.4, 1.2)))
        for pen, fill in ((draw, 255), (light_draw, int(rng.integers(0, 256)))):
            pen.line([(x, root), mid, tip], fill=fill, width=width)
    first, second = pick(rng, colours), pick(rng, colours)
    level = np.asarray(light.reduce(2), np.float32)[..., None] / 255
    paint(canvas, mask, first + level * (second - first))


def facade(rng: Rng, canvas: np.ndarray, colours: np.ndarray) -> None:
    """Walls of bricks, windows, tiles or planks, seen in perspective."""
    side = len(canvas)
    for _ in range(rng.integers(1, 4)):
        wall = wall_picture(rng, colours).convert("RGBA")
        box = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * rng.uniform(0.5, 1.3, 2) + rng.uniform(-0.3, 0.5, 2)
        quad = (box + rng.normal(0, rng.choice((0.0, 0.06, 0.12)), (4, 2))) * side
        source = np.array([[0, 0], [0, wall.height], [wall.width, wall.height], [wall.width, 0]], float)
        try:
            coefficients = homography(quad, source)
        except np.linalg.LinAlgError:
            continue
        placed = wall.transform((side, side), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
        pixels = np.asarray(placed, np.float32) / 255
        colour = pixels[..., :3]
        if rng.random() < 0.7:
            colour = colour * (1 + rng.uniform(0.05, 0.4) * patch(rng, side, side, zoom=0.6)[..., None])
        canvas += pixels[..., 3:] * (colour - canvas)


def homography(target: np.ndarray, source: np.ndarray) -> list[float]:
    """The eight coefficients that take target points to source points, as Pillow wants them."""
    rows = []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.linalg.solve(np.array(rows), source.reshape(-1)).tolist()


def wall_picture(rng: Rng, colours: np.ndarray) -> Image.Image:
    """A flat wall, 768 x 768, RGB."""
    side = 768
    base, other = pick(rng, colours), pick(rng, colours)
    picture = Image.new("RGB", (side, side), ink(base))
    draw = ImageDraw.Draw(picture)
    kind = rng.choice(("bricks", "windows", "planks", "tiles", "fence"))
    high = int(rng.integers(14, 90))
    joint = max(2, int(high * rng.uniform(0.05, 0.4)))
    wide = max(int(high * rng.uniform(0.5, 3)), 2 * joint + 8)
    vary = rng.uniform(0.0, 0.25)
    for row, y in enumerate(range(0, side, high)):
        for x in range(-wide * (row % 2) // 2 if kind == "bricks" else 0, side, wide):
            tone = other * (1 + vary * rng.standard_normal())
            if kind == "tiles":
                tone = (base, other)[(x // wide + row) % 2] * (1 + vary * rng.standard_normal())
                draw.rectangle([x, y, x + wide, y + high], fill=ink(tone))
            elif kind == "windows":
                draw.rectangle([x + joint, y + joint, x + wide, y + high], fill=ink(tone))
                draw.rectangle(
                    [x + joint + 3, y + joint + 3, x + wide - 3, y + (high + joint) // 2],
                    fill=ink(0.5 * tone),
                )
            elif kind == "bricks":
                draw.rectangle([x + joint // 2, y + joint // 2, x + wide - joint, y + high - joint], fill=ink(tone))
            elif row == 0:
                gap = joint if kind == "planks" else wide // 2
                draw.rectangle([x, 0, x + wide - gap, side], fill=ink(tone))
    return picture


@lru_cache(maxsize=256)
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def text(rng: Rng, canvas: np.ndarray, colours: np.ndarray) -> None:
    """Lines of letters of many sizes and directions."""
    side = len(canvas)
    letters = np.array(list(string.ascii_letters * 2 + string.digits + string.ascii_lowercase * 3 + ".,:-&?!()"))
    for _ in range(rng.integers(1, 6)):
        height = int(np.exp(rng.uniform(np.log(14), np.log(160))))
        lines = int(rng.integers(1, max(2, min(12, 500 // height))))
        words = [
            " ".join("".join(rng.choice(letters, rng.integers(1, 10))) for _ in range(max(1, 300 // height)))
            for _ in range(lines)
        ]
        block, weight = "\n".join(words), int(rng.choice((0, 0, 1, 2)))
        x0, y0, x1, y1 = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
            (0, 0), block, font=font(height), stroke_width=weight
        )
        mask = Image.new("L", (int(x1 - x0) + 4, int(y1 - y0) + 4), 0)
        ImageDraw.Draw(mask).multiline_text((2 - x0, 2 - y0), block, fill=255, font=font(height), stroke_width=weight)
        if rng.random() < 0.5:
            mask = mask.rotate(rng.normal(0, rng.choice((3, 25, 90))), Image.Resampling.BICUBIC, expand=True)
        layer = Image.new("L", (side, side), 0)
        layer.paste(mask, tuple(int(v) for v in rng.uniform(-0.2, 0.7, 2) * side))
        alpha = np.asarray(layer, np.float32)[..., None] / 255
        canvas += alpha * (pick(rng, colours) - canvas)


def line_art(rng: Rng, canvas: np.ndarray, colours: np.ndarray) -> None:
    """Curves, outlines, hatching and wires of a few widths."""
    side = 2 * len(canvas)
    for _ in range(rng.integers(1, 4)):
        mask, draw = mask_like(canvas)
        for _ in range(rng.integers(3, 30)):
            width = int(rng.choice((2, 3, 4, 6, 10, 16)))
            points = np.cumsum(rng.normal(0, side * rng.uniform(0.02, 0.2), (int(rng.integers(2, 7)), 2)), 0)
            points += rng.uniform(0, side, 2)
            shape = rng.random()
            if shape < 0.5:
                t = np.linspace(0, len(points) - 1, 40)
                smooth = np.stack([np.interp(t, np.arange(len(points)), points[:, k]) for k in (0, 1)], -1)
                smooth[2:-2] = sum(smooth[k : len(smooth) - 4 + k] for k in range(5)) / 5
                draw.line([tuple(p) for p in smooth], fill=255, width=width, joint="curve")
            elif shape < 0.75:
                (ax, ay), (bx, by) = points.min(0), points.max(0)
                (draw.ellipse if rng.random() < 0.6 else draw.rectangle)(
                    [ax, ay, bx + 1, by + 1], outline=255, width=width
                )
            else:
                step = rng.uniform(8, 40)
                along = (points[1] - points[0]) * rng.uniform(0.3, 2)
                across = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-6) * step
                for k in range(int(rng.integers(3, 25))):
                    start = points[0] + k * across
                    draw.line([tuple(start), tuple(start + along)], fill=255, width=width)
        paint(canvas, mask, pick(rng, colours))


# --- Lens and tone ---


def blur(canvas: np.ndarray, sigma: float) -> np.ndarray:
    """Out of focus by a Gaussian of `sigma` canvas pixels."""
    picture = Image.fromarray((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(sigma)), np.float32) / 255


def maybe_blur(rng: Rng, canvas: np.ndarray, chance: float) -> np.ndarray:
    return blur(canvas, rng.uniform(1.5, 12)) if rng.random() < chance else canvas


def finish(rng: Rng, canvas: np.ndarray) -> np.ndarray:
    """Depth of field, halving, contrast, white balance, gamma and sharpening; uint8."""
    side = len(canvas)
    if rng.random() < 0.15:
        x, y = grid(side)
        angle = rng.uniform(0, 2 * np.pi)
        distance = np.abs(np.cos(angle) * x + np.sin(angle) * y - rng.normal(0, 0.5))
        depth = np.clip(2 * distance - 0.5, 0, 1)[..., None]
        canvas = canvas + depth * (blur(canvas, rng.uniform(2, 8)) - canvas)
    small = (canvas[::2, ::2] + canvas[1::2, ::2] + canvas[::2, 1::2] + canvas[1::2, 1::2]) / 4
    small = np.clip(small, 0, 1)
    contrast = rng.uniform(0.35, 0.8) if rng.random() < 0.15 else rng.uniform(0.8, 1.25)
    small = (small - 0.5) * np.float32(contrast) + np.float32(0.5 + rng.normal(0, 0.05))
    grey = (small @ GREY)[..., None]
    small = grey + np.float32(rng.uniform(0.5, 1.2)) * (small - grey)
    small *= (1 + rng.normal(0, 0.05, 3)).astype(np.float32)
    toned = (np.clip(small, 0, 1) ** np.float32(rng.uniform(0.65, 1.25)) * 255 + 0.5).astype(np.uint8)
    # Cameras sharpen: without it the finest octave is weaker than in photos.
    if rng.random() < 0.6:
        mask = ImageFilter.UnsharpMask(rng.uniform(0.6, 1.3), int(rng.uniform(30, 150)), 2)
        toned = np.array(Image.fromarray(toned).filter(mask))
    return toned
