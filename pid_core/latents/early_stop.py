"""Stopping the generator early: PiD finishes a latent that still carries noise, so the last steps need not run.

Source: reference, latent noise section: a latent caught after K steps is at the level sigmas[K]; SDXL's, which samplers
hold as z + sigma * eps, is divided by sqrt(1 + sigma^2) with its sigma; and NVIDIA's own stop steps for each generator.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import NoStopLevelError
from .checks import check_latent
from .families import LatentFamily, LatentModel, families, get_family
from .noise import signal_scale


def generators() -> dict[str, LatentModel]:
    """The generators that can be stopped early, by their names, in the order of lists."""
    rows = [generator for row in families() for generator in row.generators]
    return {generator.name: generator for generator in sorted(rows)}


class CarriedNoise(NamedTuple):
    """What a latent that was stopped early says of itself: its family and its degrade_sigma."""

    family: str
    sigma: float


class Stop(NamedTuple):
    """The shortened schedule, the degrade_sigma its latent has, and after how many of how many steps it ends."""

    sigmas: Tensor
    degrade_sigma: float
    step: int
    steps: int


def recommended_step(generator: str, steps: int) -> int:
    """NVIDIA's stop for a generator (a key of `generators()`), as a step of a schedule of `steps`.

    The same part of the schedule, rounded: the same scheduler is there at the same noise level, whatever the count.
    """
    _, row = _find(generator)
    return min(max(round(steps * row.stop / row.steps), 1), steps)


def stop_early(sigmas: Tensor, generator: str, step: int | None = None) -> Stop:
    """Cut a generator's schedule [n + 1] after `step` of its n steps; None takes the recommended one.

    Raises ValueError in one line for a schedule that does not fall, a step outside 1 to n, or a level above 1 where
    the generator's own noise levels end at 1.
    """
    family, _ = _find(generator)
    steps = _check_schedule(sigmas)
    if step is None:
        step = recommended_step(generator, steps)
    if not 1 <= step <= steps:
        raise ValueError(f"stop_step is {step}, but the schedule has {steps} steps: choose 1 to {steps}")
    sigma = float(sigmas[step])
    if family.noising == "flow" and sigma > 1:
        raise ValueError(
            f"after step {step} the schedule is at sigma {sigma:.3g}; {generator}'s never exceed 1: choose "
            "the generator that this schedule is for"
        )
    degrade_sigma = sigma / math.hypot(1, sigma) if family.noising == "vp" else sigma
    return Stop(sigmas[: step + 1], degrade_sigma, step, steps)


def undo_sampler_scaling(latent: Tensor, sigma: float, family: str) -> Tensor:
    """A raw latent as ComfyUI's samplers hand it back at degrade_sigma `sigma` -> the raw latent that is at that level.

    Flow models come back divided by (1 - sigma); SDXL as z + s * eps, which is divided by sqrt(1 + s^2). Both happen in
    the model's normalised space, so the family's shift and scale come off before and go on again. Same shape, float32.
    Raises ValueError in one line when the latent does not fit the family, or sigma is outside 0 to 1.
    """
    if not 0 <= sigma < 1:
        raise NoStopLevelError(sigma)
    row = get_family(family)
    check_latent(latent, row.channels, row.name)
    # for SDXL 1 / sqrt(1 + s^2), written in sigma = s / sqrt(1 + s^2)
    factor = float(signal_scale(torch.tensor(sigma, dtype=torch.float64), row.name))
    return row.denormalise(row.normalise(latent.float()) * factor)


def _find(generator: str) -> tuple[LatentFamily, LatentModel]:
    for family in families():
        for row in family.generators:
            if row.name == generator:
                return family, row
    raise ValueError(f"unknown generator {generator!r}; choose one of {', '.join(generators())}")


def _check_schedule(sigmas: Tensor) -> int:
    """Number of steps."""
    if sigmas.ndim != 1 or sigmas.numel() < 2:
        raise ValueError(f"sigmas must list at least two noise levels, got shape {list(sigmas.shape)}")
    if not bool(torch.isfinite(sigmas).all()) or bool((sigmas < 0).any()) or bool((sigmas.diff() > 0).any()):
        raise ValueError(f"sigmas must fall from step to step and never below 0, got {_short(sigmas)}")
    return sigmas.numel() - 1


def _short(sigmas: Tensor) -> str:
    values = [f"{v:.3g}" for v in sigmas.tolist()]
    return ", ".join(values if len(values) <= 8 else [*values[:4], "...", *values[-3:]])
