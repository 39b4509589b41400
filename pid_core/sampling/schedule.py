"""Noise levels of the distilled student and of the undistilled teacher (reference: samplers)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # batch --dry-run does without PyTorch, which takes half a gigabyte
    from torch import Tensor

Level = TypeVar("Level", "Tensor", float)

SCHEDULES = ("distilled", "undistilled")

# The student was trained at exactly these times; they are no shifted uniform grid.
DISTILLED_SIGMAS: tuple[float, ...] = (0.999, 0.866, 0.634, 0.342, 0.0)


def distilled_sigmas(steps: int = 4) -> Tensor:
    """float32 [steps + 1], falling to 0, for 1 to 4 steps.

    Two and three steps pick from the four-step list; one step starts at pure noise, t = 1.
    Raises ValueError for any other count: the student knows no other noise levels.
    """
    import torch

    check_steps(steps)
    last = len(DISTILLED_SIGMAS) - 1
    if steps == 1:
        return torch.tensor([1.0, 0.0], dtype=torch.float32)
    picked = [DISTILLED_SIGMAS[round(i * last / steps)] for i in range(steps + 1)]
    return torch.tensor(picked, dtype=torch.float32)


def check_steps(steps: int) -> None:
    """Raise ValueError for a count that `distilled_sigmas` does not know."""
    last = len(DISTILLED_SIGMAS) - 1
    if isinstance(steps, float) or steps not in range(1, last + 1):
        raise ValueError(f"steps is {steps}, but 4-step checkpoints know 1 to {last}: choose one of these")


# First of the teacher's times before the shift; the rest are spaced evenly from here to 0.
TEACHER_START = 0.999
# Teacher's flow shift by version: base at a square of this many pixels a side.
_SHIFT_BASES = {"v1": (4.0, 1024), "v1.5": (6.0, 2048)}
PIXELDIT_SHIFT = 4.0


def flow_shift(version: str, height: int, width: int) -> float:
    """The undistilled checkpoint's shift for an image of height x width pixels: more pixels, more shift.

    version: `PiDConfig.version`. PixelDiT's is fixed. Source: the reference's dynamic shift.
    """
    if version not in _SHIFT_BASES:
        return PIXELDIT_SHIFT
    base, side = _SHIFT_BASES[version]
    return base * (math.sqrt(height * width) / side) ** 0.5


def shift_sigmas(sigmas: Level, shift: float) -> Level:
    """Flow noise levels in [0, 1] moved towards noise: shift * s / (1 + (shift - 1) * s). 0 and 1 stay.

    Shifting by a and then by b is shifting by a * b.
    """
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def undistilled_sigmas(steps: int, shift: float) -> Tensor:
    """float32 [steps + 1], falling to 0: what the reference's multistep solver runs the teacher at.

    shift: `flow_shift` of the image. Raises ValueError for fewer than one step.
    """
    import torch

    if steps < 1:
        raise ValueError(f"an undistilled checkpoint needs at least 1 step, got {steps} (25 is usual)")
    even = torch.linspace(TEACHER_START, 0, steps + 1, dtype=torch.float64)
    return shift_sigmas(even, shift).float()
