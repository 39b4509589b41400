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
    if isinstance(steps, float) or steps not in range(1, last + 1):
        raise ValueError(f"the distilled student runs in 1 to {last} steps, got {steps}")
    if steps == 1:
        return torch.tensor([1.0, 0.0], dtype=torch.float32)
    picked = [DISTILLED_SIGMAS[round(i * last / steps)] for i in range(steps + 1)]
    return torch.tensor(picked, dtype=torch.float32)


def x0_from_velocity(x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
    """The clean image that a velocity points to, x0 = x - t * velocity, float32.

    x and velocity [B, 3, H, W]; t, the noise level in [0, 1], is one number or [B, 1, 1, 1].
    Source: the reference's student sampler, which works this out in float64 (float32 on Apple's GPUs, which have no
    float64).
    """
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    return (x.to(wide) - t.to(wide) * velocity.to(wide)).float()
