"""The noise ComfyUI draws for a seed, so that `decode` can be given exactly the same.

Source: ComfyUI `comfy/sample.py` (`prepare_noise`) and `comfy/k_diffusion/sampling.py`
(`default_noise_sampler`), v0.25.0 and v0.33.0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def comfy_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """First noise of a run: float32 on the CPU whatever the device, one draw for the whole batch."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def comfy_step_noise(shape: tuple[int, ...], seed: int, count: int, device: str | torch.device = "cpu") -> list[Tensor]:
    """Noise of the `lcm` sampler's re-noisings, in order: `count` float32 tensors on `device`.

    A run of n steps has n - 1 of them. On a GPU they differ from the CPU's, as they do in ComfyUI.
    """
    device = torch.device(device)
    # On the CPU the first noise already used this seed, so ComfyUI moves on by one there.
    step_seed = seed + 1 if device.type == "cpu" else seed
    generator = torch.Generator(device).manual_seed(step_seed)
    return [torch.randn(shape, generator=generator, device=device) for _ in range(count)]
