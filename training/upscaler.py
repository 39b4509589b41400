"""The network that is trained: a residual trunk at the small picture's size, which PiDNetwork can hold exactly.

What it lacks beside PiDNetwork does nothing there: see to_checkpoint.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.crops import SCALE

WIDTH = 64  # of the trunk: lq_width less two channels for each of GroupNorm's four groups
BLOCKS = 12
PIXELS = 3 * SCALE**2  # what one small pixel becomes
# Detail's gate is sigmoid(STEEP * (SHUT - degrade_sigma)): open at 0, shut from twice SHUT on.
STEEP, SHUT = 160.0, 0.04


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class Upscaler(nn.Module):
    """Small pictures [B, 3, h, w] in [-1, 1] and their degrade_sigma [B] -> pictures [B, 3, 4h, 4w].

    The trunk does not see sigma. Its first readout is for noisy pictures; what the second adds is for clean ones.
    """

    def __init__(self, width: int = WIDTH, blocks: int = BLOCKS):
        super().__init__()
        self.entry = nn.ModuleList([conv(3, width), conv(width, width)])
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.noisy, self.clean = nn.Conv2d(width, PIXELS, 1), nn.Conv2d(width, PIXELS, 1)
        self.level = nn.Conv2d(width, SCALE**2, 1)  # of grain; learnt last (grain.py)
        for readout in (self.noisy, self.clean, self.level):
            nn.init.zeros_(readout.weight)
            nn.init.zeros_(readout.bias)
        nn.init.constant_(self.level.bias, 0.03)

    def features(self, small: Tensor) -> Tensor:
        x = self.entry[1](F.silu(self.entry[0](small)))
        for block in self.blocks:
            x = block(x)
        return x

    def read(self, features: Tensor, sigma: Tensor) -> Tensor:
        gate = torch.sigmoid(STEEP * (SHUT - sigma)).view(-1, 1, 1, 1)
        return F.pixel_shuffle(self.noisy(features) + gate * self.clean(features), SCALE)

    def strength(self, features: Tensor) -> Tensor:
        """Deviation of the brightness that is missing, [B, 1, 4h, 4w]; its sign says nothing."""
        return F.pixel_shuffle(self.level(features), SCALE)

    def forward(self, small: Tensor, sigma: Tensor) -> Tensor:
        return self.read(self.features(small), sigma)

    @torch.no_grad()
    def start_linear(self, pictures: Tensor, small: Tensor) -> None:
        """Become the best linear upscaler of these pairs that sees 3 x 3 small pixels.

        From random weights most of an hour goes by before plain interpolation is found.
        """
        seen = F.unfold(F.pad(small, (1, 1, 1, 1), mode="replicate"), 3).mT.flatten(0, 1).double()
        wanted = F.pixel_unshuffle(pictures, SCALE).movedim(1, -1).flatten(0, -2).double()
        ridge = 1e-4 * len(seen) * seen.square().mean() * torch.eye(27, dtype=torch.float64)
        weights = torch.linalg.solve(seen.mT @ seen + ridge, seen.mT @ wanted).mT.float()  # [PIXELS, 27]
        outer, size, inner = torch.linalg.svd(weights, full_matrices=False)
        scale = (seen.float() @ inner.mT).std(0)
        first, second = self.entry
        first.weight[:6] = 0
        first.weight[:3, :, 1, 1], first.weight[3:6, :, 1, 1] = torch.eye(3), -torch.eye(3)
        first.bias[:6] = 0
        kernels = (inner / scale[:, None]).view(27, 3, 3, 3)
        second.weight[:27] = 0
        second.weight[:27, :6] = torch.cat([kernels, -kernels], 1)  # silu(x) - silu(-x) = x
        second.bias[:27] = 0
        self.noisy.weight[:, :27, 0, 0] = outer * (size * scale)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")
    nn.init.zeros_(layer.bias)
    return layer


def read_upscaler(path: Path) -> Upscaler:
    """The averaged weights of a run's state."""
    state = torch.load(path, weights_only=False, map_location="cpu")["ema"]
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    net = Upscaler(state["noisy.weight"].shape[1], blocks)
    net.load_state_dict(state, strict=False)  # the level may not be there yet
    return net
