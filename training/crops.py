"""What a training step sees: crops of the pool's pictures and their quarter-size versions, clean or worn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SCALE = 4
SOFT = 0.35  # share of crops that are magnified: photos are softer at pixel size than what is drawn
WORN = 0.2  # share of small pictures with sensor noise or JPEG, which sigma 0 has to stand
NOISED = 0.33  # share of small pictures with the noise of a degrade_sigma
PLAIN = 0.06  # share of crops that are a flat colour or a ramp


class Crops:
    """Random crops of the pictures in a folder's part*.npy, [N, H, W, 3] uint8 each; parts may still come."""

    def __init__(self, folder: Path, rng: np.random.Generator):
        self.folder, self.rng, self.parts, self.drawn = folder, rng, [], 0

    def batch(self, count: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures [B, 3, side, side] and small pictures [B, 3, side/4, side/4], both in [-1, 1], and sigma [B]."""
        if self.drawn % 1000 == 0:
            self.parts = [np.load(path, mmap_mode="r") for path in sorted(self.folder.glob("part*.npy"))]
        self.drawn += 1
        pictures = torch.stack([self.picture(side) for _ in range(count)])
        small = F.interpolate(pictures, scale_factor=1 / SCALE, mode="bicubic", antialias=True).clamp(-1, 1)
        small = torch.stack([self.worn(x) if self.rng.random() < WORN else x for x in eight_bits(small)])
        sigma = torch.from_numpy(0.8 * self.rng.uniform(size=count) ** 1.5 * (self.rng.uniform(size=count) < NOISED))
        s = sigma.float().view(-1, 1, 1, 1)
        return pictures, (1 - s) * small + s * torch.randn_like(small), sigma.float()

    def picture(self, side: int) -> Tensor:
        rng = self.rng
        if rng.random() < PLAIN:
            return self.plain(side)
        part = self.parts[rng.integers(len(self.parts))]
        whole = part[rng.integers(len(part))]
        scale = 1.0
        if rng.random() < SOFT:
            scale = 1 / rng.uniform(1.2, 3.5)
        elif rng.random() < 0.3:
            scale = rng.uniform(1, min(whole.shape[:2]) / side) if rng.random() < 0.5 else 1.5
        taken = min(round(scale * side), *whole.shape[:2])
        top, left = (rng.integers(length - taken + 1) for length in whole.shape[:2])
        crop = torch.from_numpy(np.array(whole[top : top + taken, left : left + taken]))
        crop = crop.permute(2, 0, 1).float() / 127.5 - 1
        if taken != side:
            crop = F.interpolate(crop[None], (side, side), mode="bicubic", antialias=True)[0].clamp(-1, 1)
        if taken < side:  # film and sensor leave grain in the softest photo
            crop = (crop + rng.choice((0.0, 0.008, 0.02)) * torch.randn_like(crop)).clamp(-1, 1)
        crop = crop[torch.from_numpy(rng.permutation(3))]
        if rng.random() < 0.5:
            crop = crop.transpose(1, 2)
        return crop.flip([dim for dim in (1, 2) if rng.random() < 0.5])

    def plain(self, side: int) -> Tensor:
        """A flat colour or a ramp: nothing may be drawn where there is nothing."""
        colour, down, across = (torch.from_numpy(self.rng.uniform(-1, 1, (3, 1, 1))).float() for _ in range(3))
        ramp = torch.linspace(-0.5, 0.5, side) * self.rng.choice((0.0, 0.1, 0.5))
        return (colour + down * ramp[:, None] + across * ramp).clamp(-1, 1)

    def worn(self, small: Tensor) -> Tensor:
        """One small picture with sensor noise, or as a JPEG file."""
        rng = self.rng
        if rng.random() < 0.5:
            strength = rng.uniform(0.5, 8) / 127.5
            return eight_bits(small + strength * torch.randn_like(small))
        file = io.BytesIO()
        pixels = ((small + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        quality, subsampling = int(rng.integers(70, 96)), int(rng.choice((0, 2)))
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
        return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 127.5 - 1


def eight_bits(image: Tensor) -> Tensor:
    """Values in [-1, 1] as a file of 8 bits keeps them."""
    return (image.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
