"""What is measured: a network that is loaded, and what goes into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..model.config import PiDConfig
from ..model.network import PiDNetwork
from ..upscale.bridge import Bridge

T, SIGMA = 0.866, 0.1  # of a single call: the second of the student's noise levels, a little noise in the latent


@dataclass
class Subject:
    """net: on `device`. name: as a report has it. caption: [1, T, caption_width], of a text.

    bridge: what encodes pictures where the family has a VAE. load: the same weights once more in another dtype, where
    there is a file. repeated: network calls that had to be repeated in float32. decodes: so far.
    """

    net: PiDNetwork
    device: torch.device
    name: str
    caption: Tensor | None = None
    bridge: Bridge | None = None
    load: Callable[[torch.dtype], PiDNetwork] | None = None
    repeated: int = 0
    decodes: int = 0

    @property
    def config(self) -> PiDConfig:
        """Of the network."""
        return self.net.config

    @property
    def dtype(self) -> str:
        """What it computes in, by its name."""
        return str(self.net.compute_dtype).removeprefix("torch.")

    def decoded(self, net: PiDNetwork) -> None:
        """One more decode is done."""
        self.decodes += 1
        self.repeated += len(net.repeated)


class Inputs(NamedTuple):
    """Drawn at random, the same every time: x [1, 3, H, W], latent [1, C, h, w], caption [1, T, W], one sigma [1]."""

    x: Tensor
    latent: Tensor
    caption: Tensor
    sigma: Tensor

    @classmethod
    def draw(cls, subject: Subject, height: int, width: int) -> Inputs:
        """For a canvas of height x width pixels, whole cells of the latent; float32 on the device."""
        config, generator = subject.config, torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(1, *shape, generator=generator).to(subject.device)

        cell = config.latent_cell
        text = subject.caption if subject.caption is not None else subject.net.default_caption
        return cls(
            draw(3, height, width),
            draw(config.latent_channels, height // cell, width // cell),
            draw(config.caption_length, config.caption_width) if text is None else text.to(subject.device),
            torch.tensor([SIGMA], device=subject.device),
        )


def whole_cells(side: int, config: PiDConfig) -> int:
    """The next side down that is whole cells of the latent; one cell at least."""
    return max(side // config.latent_cell, 1) * config.latent_cell
