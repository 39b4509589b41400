"""A picture that x0 is held to, with its own noise counted."""

from __future__ import annotations

from torch import Tensor

from ...pid_core.images.quality import grain
from ...pid_core.sampling.hold import Hold


def hold_to(reference: Tensor, strength: float) -> Hold:
    """reference [B, 3, h, w] in [-1, 1]; its grain, measured, is not to come back."""
    noise = [2 * grain((one.movedim(0, -1) + 1) / 2) for one in reference]  # a range of 2, where an image has 1
    return Hold(reference, strength, noise=noise)


def describe_hold(hold: Hold) -> list[str]:
    """A line for the node where the reference is noisy."""
    if max(hold.noise) == 0:
        return []
    return ["the reference is noisy itself: hold gives back only what is more than its noise, use colour_hold there"]
