"""The noise of a run, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..model.devices import to_device


def noise_source(
    shape: tuple[int, ...],
    steps: int,
    seed: int,
    noise: Tensor | None,
    step_noise: Sequence[Tensor] | None,
    device: torch.device,
) -> Iterator[Tensor]:
    """The first noise, then one per re-noising: those given, else draws of one generator in order.

    Raises ValueError in one line for too few of them, and for one of another shape.
    """
    noises = [noise, *(step_noise if step_noise is not None else [None] * (steps - 1))]
    if len(noises) < steps:
        raise ValueError(f"step_noise holds {len(noises) - 1} tensors, {steps} steps need {steps - 1}")
    for i, tensor in enumerate(noises[:steps]):
        if tensor is not None and tuple(tensor.shape) != shape:
            name = "noise" if i == 0 else f"step_noise[{i - 1}]"
            raise ValueError(f"{name} has shape {list(tensor.shape)}, {list(shape)} is needed")
    return _draws(noises[:steps], shape, seed, device)


def _draws(noises: list[Tensor | None], shape: tuple[int, ...], seed: int, device: torch.device) -> Iterator[Tensor]:
    missing = any(tensor is None for tensor in noises)
    generator = torch.Generator(device=device).manual_seed(seed) if missing else None
    for i, tensor in enumerate(noises):
        if any(t is None for t in noises[i:]):
            # also where one is given: a first noise from the same seed would else come again at the next step
            draw = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        yield draw if tensor is None else to_device(tensor, device)
