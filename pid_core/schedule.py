"""The distilled student's noise levels (reference section: samplers, 4-step student)."""

from __future__ import annotations

import torch
from torch import Tensor

# The student was trained at exactly these times; they are no shifted uniform grid.
DISTILLED_SIGMAS: tuple[float, ...] = (0.999, 0.866, 0.634, 0.342, 0.0)


def distilled_sigmas(steps: int = 4) -> Tensor:
    """float32 [steps + 1], falling to 0, for 1 to 4 steps.

    Two and three steps pick from the four-step list; one step starts at pure noise, t = 1.
    Raises ValueError for any other count: the student knows no other noise levels.
    """
    last = len(DISTILLED_SIGMAS) - 1
    if steps not in range(1, last + 1):
        raise ValueError(f"the distilled student runs in 1 to {last} steps, got {steps}")
    if steps == 1:
        return torch.tensor([1.0, 0.0])
    return torch.tensor([DISTILLED_SIGMAS[round(i * last / steps)] for i in range(steps + 1)])
