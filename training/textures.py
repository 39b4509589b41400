"""Grey texture tiles made by code: what the surfaces of the training scenes are filled with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

TILE = 1024
BANK_SEED = 20


def _standardise(tile: np.ndarray) -> np.ndarray:
    tile = tile.astype(np.float32)
    return (tile - tile.mean()) / (tile.std() + 1e-6)


def fractal(
    rng: np.random.Generator,
    slope: float,
    orientation: float | None = None,
    spread: float = 0.15,
    size: int = TILE,
) -> np.ndarray:
    """Noise with amplitude spectrum 1/f^slope, periodic, mean 0, std 1; [size, size] float32.

    With an `orientation` (radians) only waves within about `spread` radians of it are kept.
    """
    fy = np.fft.fftfreq(size)[:, None].astype(np.float32)
    fx = np.fft.rfftfreq(size)[None].astype(np.float32)
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1
    amplitude = radius**-slope
    amplitude[0, 0] = 0
    if orientation is not None:
        angle = np.arctan2(fy, fx) - orientation
        amplitude *= np.exp(-0.5 * (np.sin(angle) / spread) ** 2)
    white = rng.standard_normal(amplitude.shape) + 1j * rng.standard_normal(amplitude.shape)
    return _standardise(np.fft.irfft2(white * amplitude, s=(size, size)))


def blotches(rng: np.random.Generator, slope: float, hardness: float) -> np.ndarray:
    """Fractal noise pushed towards two levels: camouflage, lichen, clumps of leaves."""
    return _standardise(np.tanh(hardness * fractal(rng, slope)))


def veins(rng: np.random.Generator, slope: float) -> np.ndarray:
    """Bright ridges where fractal noise crosses zero: cracks, marble, wrinkles."""
    return _standardise(np.exp(-3 * np.abs(fractal(rng, slope))))


def wood(rng: np.random.Generator, rings: float, warp: float) -> np.ndarray:
    """Stripes bent by smooth noise, with grain."""
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32) / TILE
    phase = rings * (x + 0.15 * y) + warp * fractal(rng, 1.8) + 0.15 * fractal(rng, 1.0)
    return _standardise(np.abs(np.sin(np.pi * phase)) ** 0.6 + 0.12 * fractal(rng, 0.7, 0.15, 0.1))


def cells(rng: np.random.Generator, count: int, edge: float) -> np.ndarray:
    """Flat random cells with dark borders `edge` pixels wide: pebbles, scales, leaves of a bush."""
    points = rng.uniform(0, TILE, (count, 2))
    y, x = np.mgrid[0:TILE, 0:TILE]
    warp = 4 * fractal(rng, 1.5)
    query = np.stack([y + warp, x + warp.T], -1).reshape(-1, 2) % TILE
    distance, index = cKDTree(points, boxsize=TILE).query(query, k=2)
    level = rng.uniform(0, 1, count)[index[:, 0]]
    border = np.clip((distance[:, 1] - distance[:, 0]) / edge, 0, 1)
    dome = 1 - 0.4 * distance[:, 0] / distance[:, 0].max()
    return _standardise((level * dome * (0.25 + 0.75 * border)).reshape(TILE, TILE))


def strokes(rng: np.random.Generator, count: int, length: float, width: int, spread: float) -> np.ndarray:
    """Short lines that follow a slowly turning direction: fur, grass, needles."""
    picture = Image.new("L", (2 * TILE, 2 * TILE), 60)
    draw = ImageDraw.Draw(picture)
    flow = fractal(rng, 2.0)
    base = rng.uniform(0, np.pi)
    for _ in range(count):
        x, y = rng.uniform(0, TILE, 2)
        angle = base + 0.5 * flow[int(y), int(x)] + spread * rng.standard_normal()
        reach = length * rng.uniform(0.4, 1.4)
        end = (2 * (x + reach * np.cos(angle)), 2 * (y + reach * np.sin(angle)))
        draw.line([(2 * x, 2 * y), end], fill=int(rng.integers(20, 255)), width=int(rng.integers(1, 2 * width + 1)))
    return _standardise(np.asarray(picture.reduce(2)))


def litter(rng: np.random.Generator, count: int, radius: float) -> np.ndarray:
    """Dense small ellipses of many grey levels: foliage, gravel, confetti."""
    picture = Image.new("L", (2 * TILE, 2 * TILE), 90)
    draw = ImageDraw.Draw(picture)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for _ in range(count):
        centre = rng.uniform(0, 2 * TILE, 2)
        long = 2 * radius * (0.3 + rng.pareto(2.5))
        short = long * rng.uniform(0.25, 1)
        angle = rng.uniform(0, np.pi)
        u, v = long * np.cos(turn), short * np.sin(turn)
        px = centre[0] + u * np.cos(angle) - v * np.sin(angle)
        py = centre[1] + u * np.sin(angle) + v * np.cos(angle)
        draw.polygon(list(zip(px, py, strict=True)), fill=int(rng.integers(0, 256)))
    return _standardise(np.asarray(picture.reduce(2)))


@lru_cache(maxsize=1)
def bank(seed: int = BANK_SEED) -> tuple[np.ndarray, ...]:
    """About 40 tiles [1024, 1024], mean 0, std 1. Made once per process, in some seconds."""
    rng = np.random.default_rng(seed)
    tiles = [fractal(rng, slope) for slope in (0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.7, 2.0)]
    tiles += [fractal(rng, rng.uniform(0.6, 1.4), rng.uniform(0, np.pi), spread) for spread in (0.06, 0.12, 0.2, 0.35)]
    tiles += [blotches(rng, slope, hard) for slope, hard in ((1.0, 2), (1.2, 4), (1.5, 8), (1.8, 20), (1.3, 10))]
    tiles += [veins(rng, slope) for slope in (1.2, 1.5, 1.8)]
    tiles += [wood(rng, rings, warp) for rings, warp in ((12, 0.5), (30, 1.0), (60, 1.5), (24, 3.0))]
    tiles += [cells(rng, count, edge) for count, edge in ((300, 8), (1200, 5), (5000, 3), (12000, 2))]
    tiles += [strokes(rng, 9000, *shape) for shape in ((40, 2, 0.15), (25, 1, 0.3), (70, 3, 0.1), (15, 2, 1.0))]
    tiles += [litter(rng, count, radius) for count, radius in ((1500, 14), (5000, 7), (12000, 4), (9000, 3))]
    return tuple(tiles)


def patch(rng: np.random.Generator, height: int, width: int, zoom: float) -> np.ndarray:
    """A random piece of a random tile, [height, width] float32, std about 1; zoom 2 halves its detail."""
    tiles = bank()
    tile = tiles[rng.integers(len(tiles))]
    if rng.random() < 0.5:
        tile = tile.T
    zoom = min(zoom, TILE / max(height, width))
    h, w = max(2, int(height * zoom)), max(2, int(width * zoom))
    top, left = rng.integers(0, TILE - h + 1), rng.integers(0, TILE - w + 1)
    piece = tile[top : top + h, left : left + w][:: rng.choice((1, -1)), :: rng.choice((1, -1))]
    if (h, w) == (height, width):
        return piece
    return np.asarray(Image.fromarray(np.ascontiguousarray(piece)).resize((width, height), Image.Resampling.BILINEAR))
