"""Where a run begins: with noise, or with a picture at one of the later noise levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..latents.reference import check_reference, crop_as_encoded, resize
from ..model.devices import to_device
from .schedule import distilled_sigmas

ASPECT_HINT = "give a picture of the output's aspect, such as the VAE's decode or an earlier result"


def sigmas_from(start_at: int, steps: int) -> Tensor:
    """The student's noise levels from step `start_at` on, counted from 1: float32 [steps - start_at + 2], falling to 0.

    Raises ValueError in one line where there is no such step, and what `distilled_sigmas` raises.
    """
    return from_step(distilled_sigmas(steps), start_at)


def from_step(sigmas: Tensor, start_at: int) -> Tensor:
    """A falling schedule [n + 1] without what lies before step `start_at`. Raises ValueError in one line."""
    steps = len(sigmas) - 1
    if not isinstance(start_at, float) and start_at in range(1, steps + 1):
        return sigmas[start_at - 1 :]
    if steps == 1:
        raise ValueError(
            f"start_at is {start_at}, but one step has no later level to begin at: set steps to 2, 3 or 4, or start_at "
            "to 1"
        )
    raise ValueError(f"start_at is {start_at}, but there are {steps} steps: choose 1 to {steps}")


def check_start(shape: Sequence[int], start: Tensor | None, start_at: int) -> None:
    """Raise ValueError in one line if a run on pixels of this shape, [B, 3, H, W], cannot begin so."""
    if start is None and start_at > 1:
        raise ValueError(f"start_at is {start_at}, and there is no picture to start from: give one, or set it to 1")
    if start is not None and start_at == 1:
        raise ValueError("a picture to start from is given, and start_at is 1, which begins with noise: set it to 2 up")
    if start is not None:
        check_reference(shape, start, "picture to start from", ASPECT_HINT)


def start_canvas(start: Tensor, shape: Sequence[int], device: torch.device) -> Tensor:
    """A picture [B or 1, 3, h, w] in [-1, 1] as large as the output: [B, 3, H, W] float32, not out of range.

    Bicubic, cropped first as VAE Encode would have cropped it. Raises what `check_start` raises.
    """
    check_start(shape, start, 2)
    images, _, *size = shape
    start = crop_as_encoded(start, *size)
    canvas = torch.empty(tuple(shape), dtype=torch.float32, device=device)
    for i in range(images):
        for channel, given in zip(canvas[i], start[i % start.shape[0]], strict=True):
            channel.copy_(resize(to_device(given, device), channel.shape).clamp_(-1, 1))
    return canvas
