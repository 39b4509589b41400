"""Hold x0 to a picture: what a reduction of it differs from the picture by is given back, at every step.

The range-null space projection of Wang, Yu and Zhang, "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space
Model", 2022 (DDNM): x0 + A'(y - A x0), with y the picture, A the reduction to its size and A' an enlargement. What the
picture shows comes from the picture, all that it cannot show from the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..latents.reference import SCALE, check_reference, crop_as_encoded, resize
from ..model.devices import to_device

# Reducing an enlargement loses some of its finest waves. Each further round gives back what is still lacking; more of
# them draw the enlargement's own ripples beside edges.
ROUNDS = 2


class Hold:
    """What `decode` and ComfyUI's samplers hold x0 to.

    reference [B or 1, 3, h, w] in [-1, 1], of any size and about the output's aspect. What is finer than a fourth of
    the output is left to the network, or finer than the reference where that is smaller.
    strength, 0 to 1: how much of the difference the last x0 gets back. noise: standard deviation of the reference's own
    grain in a range of -1 to 1, one number or one per image; the grain is not to come back, so the hold falls with its
    share of the difference (DDNM's weight for noisy pictures). Raises ValueError in one line.
    """

    def __init__(self, reference: Tensor, strength: float = 1.0, *, noise: float | Sequence[float] = 0.0):
        if not 0 <= strength <= 1:
            raise ValueError(f"hold must be between 0 and 1, got {strength}")
        self.reference, self.strength = reference, strength
        images = reference.shape[0] if reference.ndim else 1
        self.noise = [float(n) for n in noise] if isinstance(noise, Sequence) else [float(noise)] * images
        if len(self.noise) != images or min(self.noise, default=0.0) < 0:
            raise ValueError(f"noise must be 0 or more, one number or {images} of them, got {noise}")

    def check(self, shape: Sequence[int]) -> None:
        """Raise ValueError in one line if the reference does not belong to pixels of this shape, [B, 3, H, W]."""
        check_reference(shape, self.reference)

    def of(self, index: int) -> Hold:
        """That of one image of a batch."""
        if self.reference.shape[0] == 1:
            return self
        return Hold(self.reference[index : index + 1], self.strength, noise=[self.noise[index]])

    def apply_(self, x0: Tensor, level: Tensor | float) -> Tensor:
        """Change x0 [B, 3, H, W] in place, and return it.

        level: the noise level that the run goes on at, 0 behind the last step. The weight is strength * (1 - level):
        an early x0 is a guess that noise is about to cover. Needs a channel's memory beside x0.
        """
        if self.strength == 0:
            return x0
        weight = self.strength * (1 - torch.as_tensor(level, dtype=torch.float32, device=x0.device))
        reference = crop_as_encoded(self.reference, *x0.shape[-2:])
        grid = _grid(x0.shape[-2:], reference.shape[-2:])
        for i, image in enumerate(x0):
            row = i % reference.shape[0]
            targets = [resize(to_device(channel, x0.device), grid) for channel in reference[row]]
            lacks = [target - resize(channel, grid) for channel, target in zip(image, targets, strict=True)]
            share = weight * _signal(lacks, _noise_left(self.noise[row], reference.shape[-2:], grid))
            for channel, lack in zip(image, lacks, strict=True):
                channel.add_(_enlarged(lack, channel.shape).mul_(share))
        return x0


def _grid(size: Sequence[int], reference: Sequence[int]) -> tuple[int, int]:
    """Where x0 and the reference are compared: at a fourth of x0's size, or at the reference's where it is smaller."""
    height, width = (min(max(1, round(side / SCALE)), other) for side, other in zip(size, reference, strict=True))
    return height, width


def _noise_left(noise: float, size: Sequence[int], grid: Sequence[int]) -> float:
    """The deviation that averaging pixels to a coarser grid leaves of white noise."""
    return noise * (grid[0] * grid[1] / (size[0] * size[1])) ** 0.5


def _signal(lacks: list[Tensor], noise: float) -> Tensor | float:
    """The share of the difference that is not the reference's noise (Wiener)."""
    if noise == 0:
        return 1.0
    power = torch.stack([lack.square().mean() for lack in lacks]).mean()
    return (1 - noise**2 / power.clamp_min(noise**2)).clamp(0, 1)


def _enlarged(lack: Tensor, size: torch.Size) -> Tensor:
    """A picture [H, W] whose reduction is about `lack`, [h, w]."""
    whole = lack
    for _ in range(ROUNDS - 1):
        lack = lack - resize(resize(lack, size), lack.shape)
        whole = whole + lack
    return resize(whole, size)
