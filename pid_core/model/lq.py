"""LQ conditioning: the latent's projector and the sigma-aware gates that inject its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import PiDConfig
from .ops import condition_gate, group_norm_silu, token_gate


class ResBlock(nn.Module):
    """Pre-activation residual block; its norms and its sum are float32, its convolutions run in their own dtype."""

    def __init__(self, channels: int, padding: str, *, dtype=None, device=None, operations=nn):
        super().__init__()
        factory_kwargs = {"dtype": dtype, "device": device}
        conv = {"kernel_size": 3, "padding": 1, "padding_mode": padding, **factory_kwargs}
        norm = {"num_groups": 4, "num_channels": channels, "dtype": torch.float32, "device": device}
        self.block = nn.Sequential(
            operations.GroupNorm(**norm),
            nn.SiLU(),
            operations.Conv2d(channels, channels, **conv),
            operations.GroupNorm(**norm),
            nn.SiLU(),
            operations.Conv2d(channels, channels, **conv),
        )

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        norm1, conv1, norm2, conv2 = self.layers
        h = conv1(group_norm_silu(x, norm1, dtype))
        return x + conv2(group_norm_silu(h, norm2, dtype))

    @property
    def layers(self) -> tuple[nn.GroupNorm, nn.Module, nn.GroupNorm, nn.Module]:
        """Norm, convolution, norm, convolution."""
        norm1, _, conv1, norm2, _, conv2 = self.block
        return cast("nn.GroupNorm", norm1), conv1, cast("nn.GroupNorm", norm2), conv2


class SigmaGate(nn.Module):
    """s + sigmoid(Linear([s ; features]) - exp(log_alpha) * sigma) * features: a noisier latent counts for less."""

    def __init__(self, width: int, rows: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.content_proj = operations.Linear(2 * width, rows, dtype=dtype, device=device)
        self.log_alpha = nn.Parameter(torch.empty((), dtype=torch.float32, device=device))

    def forward(self, s: Tensor, features: Tensor, sigma: Tensor) -> Tensor:
        """s [B, L, D] and sigma [B, L, 1] float32, features [B, L, D] in the compute dtype -> [B, L, D] float32."""
        return token_gate(s, features, self.content_proj, self._offset(sigma))

    def condition(self, s: Tensor, te: Tensor, features: Tensor, sigma: Tensor) -> Tensor:
        """The gate of silu(te + s), in the compute dtype; te [B, 1, D] float32."""
        return condition_gate(s, te, features, self.content_proj, self._offset(sigma))

    def _offset(self, sigma: Tensor) -> Tensor:
        return self.log_alpha.to(sigma).exp() * sigma


def sigma_of_patches(sigma: Tensor, rows: int, cols: int) -> Tensor:
    """A map of degrade_sigma [B, 1, h, w] in latent cells -> [B, rows * cols], one for each patch: its cell's."""
    return F.interpolate(sigma, size=(rows, cols), mode="nearest-exact").flatten(1)


class LQProjector(nn.Module):
    """Latent -> trunk features on the patch grid -> one feature map per injection point."""

    def __init__(self, config: PiDConfig, *, dtype=None, device=None, operations=nn):
        super().__init__()
        factory_kwargs = {"dtype": dtype, "device": device}
        width, hidden = config.lq_width, config.hidden_size
        conv = {"kernel_size": 3, "padding": 1, "padding_mode": config.lq_padding, **factory_kwargs}
        blocks = [
            ResBlock(width, config.lq_padding, operations=operations, **factory_kwargs)
            for _ in range(config.lq_res_blocks)
        ]
        self.width, self.unpack = width, config.latent_unpack
        self.ratio = config.latent_cell // config.latent_unpack / config.patch_size
        self.latent_proj = nn.Sequential(
            operations.Conv2d(config.lq_in_channels, width, **conv),
            nn.SiLU(),
            operations.Conv2d(width, width, **conv),
            *blocks,
        )
        self.output_heads = nn.ModuleList(
            operations.Linear(width, hidden, **factory_kwargs) for _ in range(config.lq_outputs)
        )
        rows = hidden if config.gate == "channel" else 1
        self.gate_modules = nn.ModuleList(
            SigmaGate(hidden, rows, operations=operations, **factory_kwargs) for _ in range(config.lq_outputs)
        )
        if config.pit_injection:
            self.pit_head = operations.Linear(width, hidden, **factory_kwargs)

    def forward(self, lq_latent: Tensor, rows: int, cols: int) -> Tensor:
        """Normalised latent [B, C, h, w] -> trunk features [B, rows * cols, width] on the patch grid, row-major.

        The latent's dtype is the dtype the convolutions run in, and that of the result.
        """
        x = self.enter(self.align(lq_latent, rows, cols))
        for block in self.blocks:
            x = block(x, lq_latent.dtype)
        return self.as_tokens(x, lq_latent.dtype)

    @property
    def blocks(self) -> Sequence[ResBlock]:
        return cast("Sequence[ResBlock]", self.latent_proj[3:])

    def align(self, lq_latent: Tensor, rows: int, cols: int) -> Tensor:
        """One latent cell per patch, [B, C, rows, cols]: un-packed, and resized where the grids differ."""
        if self.unpack > 1:
            lq_latent = F.pixel_shuffle(lq_latent, self.unpack)
        if tuple(lq_latent.shape[-2:]) == (rows, cols):
            return lq_latent
        mode = "nearest" if self.ratio > 1 else "bilinear"
        return F.interpolate(lq_latent, size=(rows, cols), mode=mode)

    def enter(self, latent: Tensor) -> Tensor:
        """Through the first two convolutions: [B, width, rows, cols] float32."""
        return self.latent_proj[:3](latent).float()

    def as_tokens(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """[B, width, rows, cols] -> [B, rows * cols, width]."""
        # contiguous: every step and window reads it again, in chunks
        return rearrange(x.to(dtype), "b c h w -> b (h w) c").contiguous()
