"""Hold colours: take tone or low frequencies of a decoded image from a reference, and leave its detail alone.

PiD can drift in colour (teal casts, whitening) while the VAE's own decode, or the source picture, has the right tone at
a quarter of the size. Works on one image at a time, channel by channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..latents.reference import check_reference, crop_as_encoded, resize
from ..model.devices import to_device
from .blur import gaussian

COLOUR_HOLDS = ("none", "mean_deviation", "low_frequencies")

CELLS = 128  # most cells of the coarse grid along the longer side: cells of 16 px on an image of 2048
SMALLEST_CELL = 8  # px; the reference, four times smaller, knows nothing of finer waves
RADIUS = 2  # of the low-pass, in cells: its standard deviation
MAX_GAIN = 2.0  # most that mean_deviation stretches or squeezes a channel
FLAT = 1e-3  # deviation, of a range of 2, below which a channel is flat and has no contrast to match


def hold_colour_(pixels: Tensor, reference: Tensor, hold: str = "low_frequencies", fidelity: float = 0.0) -> Tensor:
    """Change `pixels` in place, and return them; not clamped.

    pixels [B, 3, H, W], floating point. reference [B or 1, 3, h, w] of any size and about the same aspect, in the same
    range of values; a picture that VAE Encode would have cropped is cropped the same way.
    hold: "none"; "mean_deviation", a gain and an offset per channel, for casts and whitening that are the same
    everywhere; "low_frequencies", all that a wide Gaussian leaves, for casts that differ from place to place too.
    fidelity, 0 to 1: how much of the finer detail is the reference's, enlarged. With "low_frequencies" and fidelity 1
    the result is the enlarged reference.
    An image changes only when all of its channels are worked out, so one for which the memory is too short stays as it
    was. Raises ValueError in one line.
    """
    check_hold(pixels.shape, reference, hold, fidelity)
    if hold == "none" and fidelity == 0:
        return pixels
    reference = crop_as_encoded(reference, *pixels.shape[-2:])
    for i, image in enumerate(pixels):
        target = reference[i % reference.shape[0]]
        tones: list[Tone] = []
        if hold == "mean_deviation":
            tones = [
                match_tone(ours, to_device(theirs, ours.device)) for ours, theirs in zip(image, target, strict=True)
            ]
        if tones and not fidelity:
            for channel, (gain, offset) in zip(image, tones, strict=True):
                channel.mul_(gain).add_(offset)
            continue
        low = 1.0 if hold == "low_frequencies" else 0.0
        results = [
            _hold_channel(ours, theirs, tones[k] if tones else None, low, fidelity)
            for k, (ours, theirs) in enumerate(zip(image, target, strict=True))
        ]
        for channel, new in zip(image, results, strict=True):
            channel.copy_(new)
    return pixels


def _hold_channel(channel: Tensor, reference: Tensor, tone: Tone | None, low: float, fidelity: float) -> Tensor:
    """`hold_colour_` for one channel [H, W], as a tensor of its own."""
    result, reference = channel.clone(), to_device(reference, channel.device)
    if tone is not None:
        result.mul_(tone.gain).add_(tone.offset)
    # channel + low * (slow part of reference - channel) + fidelity * (the rest of it)
    slow = low_difference(result, reference)
    if fidelity:
        result.lerp_(resize(reference, result.shape).to(result.dtype), fidelity)
    return result.add_(slow, alpha=low - fidelity)


def check_hold(shape: Sequence[int], reference: Tensor, hold: str, fidelity: float) -> None:
    """Raise ValueError in one line if `hold_colour_` would on pixels of this shape, [B, 3, H, W]."""
    if hold not in COLOUR_HOLDS:
        raise ValueError(f"colour_hold is {hold!r}; choose one of {', '.join(COLOUR_HOLDS)}")
    if not 0 <= fidelity <= 1:
        raise ValueError(f"fidelity must be between 0 and 1, got {fidelity}")
    check_reference(shape, reference)


class Tone(NamedTuple):
    """What makes one channel's tone another's: value * gain + offset."""

    gain: float
    offset: float


def match_tone(channel: Tensor, reference: Tensor) -> Tone:
    """Gain and offset that give `channel` [H, W] the mean and the deviation of `reference` [h, w].

    Both are measured on their low frequencies, so that detail which only one of them has does not count as contrast.
    """
    # on the CPU: not every device has float64, and a coarse grid is small
    ours, theirs = (gaussian(image, RADIUS).cpu().double() for image in _both_coarse(channel, reference))
    before, after = float(ours.std(correction=0)), float(theirs.std(correction=0))
    gain = 1.0 if min(before, after) < FLAT else min(max(after / before, 1 / MAX_GAIN), MAX_GAIN)
    return Tone(gain, float(theirs.mean()) - gain * float(ours.mean()))


def low_difference(channel: Tensor, reference: Tensor) -> Tensor:
    """Low frequencies of `reference` [h, w] minus those of `channel` [H, W]: [H, W] float32.

    The Gaussian runs on the coarse grid, where it costs nothing at 4096 x 4096; enlarged it is as smooth.
    """
    ours, theirs = _both_coarse(channel, reference)
    return resize(gaussian(theirs - ours, RADIUS), channel.shape)


def _both_coarse(channel: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    cell = max(SMALLEST_CELL, max(channel.shape) / CELLS)
    height, width = channel.shape
    grid = math.ceil(height / cell), math.ceil(width / cell)
    return resize(channel, grid), resize(reference, grid)
