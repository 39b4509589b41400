"""The network of sizes.SMALL with weights and inputs drawn the same every time."""

from __future__ import annotations

import torch

from support.sizes import SMALL


def seeded(net):
    """`net` with random weights under which every part of it counts."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        value = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(value / parameter[0].numel() ** 0.5 if value.ndim > 1 else 1 + 0.1 * value)
    return net


def inputs(batch=2, side=48):
    """What the network takes for images of side x side pixels."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(batch, *shape, generator=generator)

    return {
        "x": draw(3, side, side),
        "timestep": torch.linspace(100.0, 900.0, batch),
        "caption": draw(5, SMALL.caption_width),
        "lq_features": draw((side // SMALL.patch_size) ** 2, SMALL.lq_width),
        "degrade_sigma": torch.linspace(0.0, 0.5, batch),
    }
