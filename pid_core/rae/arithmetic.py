"""From a picture to what an encoder is shown, and from its tokens to a latent: all but the encoder itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .facts import EPS, STATISTICS_EPS, RAEFacts


class Statistics(NamedTuple):
    """Of a family's latents, each [C, h, w]."""

    mean: Tensor
    var: Tensor


def encoder_input(image: Tensor, facts: RAEFacts) -> Tensor:
    """[B, H, W, 3 or 4] in [0, 1] -> [B, 3, pixels, pixels], float32, squeezed to the square and normalised.

    A fourth channel is dropped. Raises ValueError for any other shape.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or min(image.shape) < 1:
        raise ValueError(f"an image is [B, H, W, 3], this one has shape {list(image.shape)}")
    pixels = rearrange(image[..., :3].float(), "b h w c -> b c h w")
    side = (facts.pixels, facts.pixels)
    if pixels.shape[-2:] != side:
        pixels = F.interpolate(pixels, size=side, mode="bicubic", antialias=facts.antialias)
    mean, deviation = (
        torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (facts.mean, facts.deviation)
    )
    return (pixels - mean) / deviation


def latent_of(tokens: Tensor, facts: RAEFacts, statistics: Statistics | None = None) -> Tensor:
    """What the encoder's last layer says, [B, special + cells^2, C] -> [B, C, cells, cells], float32 and normalised.

    The encoder's own last LayerNorm is left out before: one without weights takes its place. Raises ValueError where
    the family's statistics are missing, and for another number of tokens.
    """
    if facts.normed and statistics is None:
        raise ValueError(f"{facts.family} latents are normalised by statistics, and none are given")
    count = facts.special + facts.cells**2
    if tokens.shape[1:] != (count, facts.row.channels):
        raise ValueError(
            f"the encoder gives {tokens.shape[1]} tokens {tokens.shape[2]} wide, and a {facts.family} latent is made "
            f"of {count} tokens {facts.row.channels} wide"
        )
    normed = F.layer_norm(tokens[:, facts.special :].float(), tokens.shape[-1:], eps=EPS)
    latent = rearrange(normed, "b (h w) c -> b c h w", h=facts.cells)
    if statistics is None:
        return latent
    mean, var = (one.to(latent) for one in statistics)
    return (latent - mean) / (var + STATISTICS_EPS).sqrt()
