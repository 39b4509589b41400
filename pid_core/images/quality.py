"""How worn an image is by noise, blur and JPEG, and the degrade_sigma that follows: a suggestion, nothing more.

All are estimates from one image without a reference. Noise: the response of Immerkaer's mask (Fast Noise Variance
Estimation, CVIU 64, 1996), which straight edges and gradients do not excite, in the quietest blocks of the image,
because texture does excite it. Blur: how much steeper the strongest edges are than after blurring the image a little
more (Zhuo and Sim, Defocus map estimation from a single image, Pattern Recognition 44, 2011). JPEG: how much larger
steps are at the borders of its blocks than elsewhere (Wang, Sheikh and Bovik, No-reference perceptual quality
assessment of JPEG compressed images, ICIP 2002).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..latents.lq_input import TRAINED_SIGMA
from .blur import gaussian

LARGEST = 1024  # pixels a side that are looked at, from the middle
SMALLEST = 16  # pixels a side; below it there is nothing to measure
BLOCK = 8  # pixels a side; larger ones find fewer places between textures
QUIET = 0.05  # share of the blocks that is taken to show noise only
QUIETER = {1: 0.75, 3: 0.85}  # what the quietest blocks of white noise have of its deviation, by the number of channels
EDGES = 0.02  # share of the pixels that is taken for edges
FAINT = 0.01  # steepness below which nothing is an edge
SMOOTH = 30.0  # pixels of smoothing per noise before edges are looked for
REBLUR = 1.0  # Gaussian the image is blurred with for comparison, in pixels
SHARP = 0.9  # edges of a good photo at its own size; no more blur than this is no flaw
JPEG_GRID = 8  # pixels
STEP = 0.5 / 255  # what a step is compared with where nothing else steps
NO_BLOCKS, BLOCKS = 0.3, 0.6  # about JPEG's quality 90, and 60
JPEG_SIGMA = 0.05  # what serves pictures of quality 60 and 30 best
LEAST = 0.03  # below it a suggestion would be within what texture is taken for


class Quality(NamedTuple):
    """noise: standard deviation of its grain, in a range of 0 to 1. blur: standard deviation of its blur, in pixels.

    blocks: by how much larger steps are at the borders of JPEG's blocks than elsewhere, as a share; 0.1 and less is
    chance, 1 is a quality of about 40.
    """

    noise: float
    blur: float
    blocks: float = 0.0


def estimate_quality(image: Tensor) -> Quality:
    """Noise and blur of one image [H, W, C], C of 1 to 4, values in [0, 1]. An image too small to tell is a good one.

    Raises ValueError for any other shape.
    """
    if image.ndim != 3 or not 1 <= image.shape[-1] <= 4:
        raise ValueError(f"one image is [H, W, 3], this one has shape {list(image.shape)}")
    if min(image.shape[:2]) < SMALLEST:
        return Quality(0.0, SHARP)
    # JPEG's grid stays where it is.
    top, left = (max(side - LARGEST, 0) // 2 // JPEG_GRID * JPEG_GRID for side in image.shape[:2])
    channels = 3 if image.shape[-1] >= 3 else 1
    middle = image[top : top + LARGEST, left : left + LARGEST, :channels].detach().float()
    pixels = torch.nan_to_num(middle).clamp(0, 1).movedim(-1, 0)
    noise = _noise(pixels)
    return Quality(noise, _blur(pixels.mean(0), noise), _blocks(pixels.mean(0)))


def suggest_sigma(quality: Quality, *, invents: bool) -> float:
    """degrade_sigma for an image of this quality: 0 for a clean and sharp one, else 0.03 to 0.8, in steps of 0.01.

    invents: `PiDConfig.invents` of the model that decodes it. One that does not gets nothing for blur: it would only
    see less of the image, and draw it softer still.
    """
    signal = (1 - sigma_for_noise(quality.noise)) * (1 - sigma_for_blocks(quality.blocks))
    if invents:
        signal *= 1 - sigma_for_blur(quality.blur)
    sigma = math.floor((1 - signal) * 100 + 0.5) / 100
    return min(TRAINED_SIGMA, sigma) if sigma >= LEAST else 0.0


def grain(image: Tensor) -> float:
    """The noise of one image as `estimate_quality` sees it; 0 where it is within what texture is taken for."""
    noise = estimate_quality(image).noise
    return noise if sigma_for_noise(noise) >= LEAST else 0.0


def sigma_for_noise(noise: float) -> float:
    """The part that grain asks for: the level at which a latent's noise is as strong, sigma / (1 - sigma) = 2 * noise.

    Twice, because a latent of the bundled model spans -1 to 1 where an image spans 0 to 1.
    """
    return 2 * noise / (1 + 2 * noise)


def sigma_for_blur(blur: float) -> float:
    """The part that blur asks for: it leaves about SHARP / blur of the resolution, and the rest is to be invented."""
    return TRAINED_SIGMA * (1 - SHARP / max(blur, SHARP))


def sigma_for_blocks(blocks: float) -> float:
    """The part that JPEG asks for: little, whatever its quality, for its errors are no noise."""
    return JPEG_SIGMA * min(max((blocks - NO_BLOCKS) / (BLOCKS - NO_BLOCKS), 0.0), 1.0)


def _noise(pixels: Tensor) -> float:
    """Standard deviation of the grain of [C, H, W]."""
    mask = pixels.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None]
    power = F.conv2d(pixels[:, None], mask).square().mean((0, 1))
    level = pixels.mean(0)[1:-1, 1:-1]
    blocks, level = (F.avg_pool2d(x[None], BLOCK, ceil_mode=True).flatten() for x in (power, level))
    # Where highlights and shadows are cut off there is no grain to see.
    midtones = blocks[(level > 0.02) & (level < 0.98)]
    if midtones.numel() == 0:
        return 0.0
    # The mask's squares add up to 36.
    return math.sqrt(float(midtones.quantile(QUIET)) / 36) / QUIETER[pixels.shape[0]]


def _blur(grey: Tensor, noise: float) -> float:
    """Standard deviation of the blur of the strongest edges of [H, W]; where there is no edge, SHARP."""
    # Grain would pass for the sharpest of edges. What is smoothed here is taken off the result.
    smoothed = min(SMOOTH * noise, 3.0)
    if smoothed >= 0.25:
        grey = gaussian(grey, smoothed)
    else:
        smoothed = 0.0
    before, after = _steepness(grey), _steepness(gaussian(grey, REBLUR))
    edges = before >= before.flatten().kthvalue(int(before.numel() * (1 - EDGES))).values.clamp_min(FAINT)
    if not bool(edges.any()):
        return SHARP
    ratio = float((before[edges] / after[edges].clamp_min(1e-6)).median())
    variance = REBLUR**2 / max(ratio * ratio - 1, 1e-3)
    return math.sqrt(max(variance - smoothed**2, 0.1))


def _blocks(grey: Tensor) -> float:
    """How much larger steps of [H, W] are at the borders of JPEG's blocks, in rows and in columns alike.

    By their medians: edges of what is drawn on a grid of 8 pixels are steps at some borders, those of blocks at most.
    """
    shares = []
    for lines in (grey, grey.T):
        steps = lines[:, 1:] - lines[:, :-1]
        # Beyond what the steps at both sides foretell: slopes and edges have none.
        beyond = (steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2).abs()
        whole = beyond.shape[1] // JPEG_GRID * JPEG_GRID
        places = beyond[:, :whole].reshape(-1, JPEG_GRID).median(0).values
        border = float(places[JPEG_GRID - 2])  # the first of them lies between pixels 1 and 2
        elsewhere = (float(places.sum()) - border) / (JPEG_GRID - 1)
        shares.append((border - elsewhere) / (elsewhere + STEP))
    return max(min(shares), 0.0)


def _steepness(grey: Tensor) -> Tensor:
    """Length of Sobel's gradient at every pixel of [H, W]."""
    mask = grey.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    both = F.conv2d(_padded(grey, 1), torch.stack([mask, mask.T])[:, None])
    return both[0].square().sum(0).sqrt()


def _padded(grey: Tensor, by: int) -> Tensor:
    return F.pad(grey[None, None], (by,) * 4, mode="replicate")
