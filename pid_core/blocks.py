"""The network's blocks: joint attention over caption and patches, and the pixel blocks.

Precision (reference: bfloat16 autocast over float32 parameters): matrix products run in the dtype of the conditioning
vector `c`; norms, RoPE, gates and both residual streams are float32.
Shapes: B batch, L image tokens, T caption tokens, D hidden size, N = patch_size**2 pixels per token, P pixel width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import PiDConfig
from .positions import Rotation, rotate

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [B, heads, L, head_dim] -> the same shape


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain softmax attention, scale 1 / sqrt(head_dim), no mask."""
    return F.scaled_dot_product_attention(q, k, v)


def make_norm(width: int, *, device=None, operations=nn) -> nn.Module:
    """RMSNorm whose weight stays float32 in every dtype of the network, as in the reference."""
    return operations.RMSNorm(width, eps=1e-6, dtype=torch.float32, device=device)


def rms_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise with float32 statistics and a float32 result."""
    return norm(x.float())


class Modulation(NamedTuple):
    """shift, scale and gate of one residual line; broadcast over the stream they modulate."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def apply(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.addcmul(self.shift.float(), x, 1 + self.scale.float()).to(dtype)


def split_modulation(values: Tensor) -> tuple[Modulation, Modulation]:
    """[..., 6 * width] -> the attention line's and the MLP line's modulation."""
    parts = values.chunk(6, dim=-1)
    return Modulation(*parts[:3]), Modulation(*parts[3:])


class SwiGLU(nn.Module):
    def __init__(self, width: int, inner: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        kind = {"bias": False, "dtype": dtype, "device": device}
        self.w1 = operations.Linear(width, inner, **kind)
        self.w3 = operations.Linear(width, inner, **kind)
        self.w2 = operations.Linear(inner, width, **kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class JointAttention(nn.Module):
    """Full attention over [caption, image] with weights of their own for each stream."""

    def __init__(self, width: int, num_heads: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.num_heads = num_heads
        kind = {"dtype": dtype, "device": device}
        head_dim = width // num_heads
        self.qkv_x = operations.Linear(width, 3 * width, bias=False, **kind)
        self.qkv_y = operations.Linear(width, 3 * width, bias=False, **kind)
        for name in ("q_norm_x", "k_norm_x", "q_norm_y", "k_norm_y"):
            setattr(self, name, make_norm(head_dim, device=device, operations=operations))
        self.proj_x = operations.Linear(width, width, **kind)
        self.proj_y = operations.Linear(width, width, **kind)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        rope_x: Rotation,
        rope_y: Rotation | None,
        attention: Attention,
        with_y: bool,
    ) -> tuple[Tensor, Tensor | None]:
        qx, kx, vx = rearrange(self.qkv_x(x), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        qy, ky, vy = rearrange(self.qkv_y(y), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        qx, kx = rotate(rms_norm(self.q_norm_x, qx), rope_x), rotate(rms_norm(self.k_norm_x, kx), rope_x)
        qy, ky = rms_norm(self.q_norm_y, qy), rms_norm(self.k_norm_y, ky)
        if rope_y is not None:
            qy, ky = rotate(qy, rope_y), rotate(ky, rope_y)
        q = torch.cat([qy, qx], dim=2).to(vx.dtype)  # [B, heads, T + L, head_dim]
        k = torch.cat([ky, kx], dim=2).to(vx.dtype)
        out = rearrange(attention(q, k, torch.cat([vy, vx], dim=2)), "b h l d -> b l (h d)")
        tokens = y.shape[1]
        return self.proj_x(out[:, tokens:]), self.proj_y(out[:, :tokens]) if with_y else None


class PatchBlock(nn.Module):
    """One joint transformer block. The caption stream is left alone after the last block that needs it."""

    def __init__(self, config: PiDConfig, *, dtype=None, device=None, operations=nn):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        width = config.hidden_size
        for name in ("norm_x1", "norm_y1", "norm_x2", "norm_y2"):
            setattr(self, name, make_norm(width, device=device, operations=operations))
        self.attn = JointAttention(width, config.num_heads, operations=operations, **kind)
        self.mlp_x = SwiGLU(width, config.mlp_size, operations=operations, **kind)
        self.mlp_y = SwiGLU(width, config.mlp_size, operations=operations, **kind)
        self.adaLN_modulation_img = nn.Sequential(operations.Linear(width, 6 * width, **kind))
        self.adaLN_modulation_txt = nn.Sequential(operations.Linear(width, 6 * width, **kind))

    def forward(
        self,
        s: Tensor,
        y: Tensor,
        c: Tensor,
        rope_x: Rotation,
        rope_y: Rotation | None,
        attention: Attention,
        with_y: bool = True,
    ) -> tuple[Tensor, Tensor]:
        attn_x, mlp_x = split_modulation(self.adaLN_modulation_img(c))  # each [B, 1, D]
        attn_y, mlp_y = split_modulation(self.adaLN_modulation_txt(c))
        x = attn_x.apply(rms_norm(self.norm_x1, s), c.dtype)
        text = attn_y.apply(rms_norm(self.norm_y1, y), c.dtype)
        x, text = self.attn(x, text, rope_x, rope_y, attention, with_y)
        s = torch.addcmul(s.float(), attn_x.gate, x)
        s = torch.addcmul(s, mlp_x.gate, self.mlp_x(mlp_x.apply(rms_norm(self.norm_x2, s), c.dtype)))
        if with_y:
            y = torch.addcmul(y, attn_y.gate, text)
            y = torch.addcmul(y, mlp_y.gate, self.mlp_y(mlp_y.apply(rms_norm(self.norm_y2, y), c.dtype)))
        return s, y


class PixelAttention(nn.Module):
    """Self-attention over the image tokens, used inside a pixel block."""

    def __init__(self, width: int, num_heads: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.num_heads = num_heads
        kind = {"dtype": dtype, "device": device}
        self.qkv = operations.Linear(width, 3 * width, bias=False, **kind)
        self.q_norm = make_norm(width // num_heads, device=device, operations=operations)
        self.k_norm = make_norm(width // num_heads, device=device, operations=operations)
        self.proj = operations.Linear(width, width, **kind)

    def forward(self, x: Tensor, rope: Rotation, attention: Attention) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        q = rotate(rms_norm(self.q_norm, q), rope).to(v.dtype)
        k = rotate(rms_norm(self.k_norm, k), rope).to(v.dtype)
        return self.proj(rearrange(attention(q, k, v), "b h l d -> b l (h d)"))


class PixelMLP(nn.Module):
    def __init__(self, width: int, inner: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.fc1 = operations.Linear(width, inner, dtype=dtype, device=device)
        self.fc2 = operations.Linear(inner, width, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PixelBlock(nn.Module):
    """Refines every pixel, with its own modulation per pixel and attention between whole patches."""

    def __init__(self, config: PiDConfig, *, dtype=None, device=None, operations=nn):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        width, attn_width = config.pixel_hidden_size, config.pixel_attn_size
        patch_width = width * config.patch_size**2
        self.norm1 = make_norm(width, device=device, operations=operations)
        self.norm2 = make_norm(width, device=device, operations=operations)
        self.compress_to_attn = operations.Linear(patch_width, attn_width, **kind)
        self.attn = PixelAttention(attn_width, config.pixel_num_heads, operations=operations, **kind)
        self.expand_from_attn = operations.Linear(attn_width, patch_width, **kind)
        self.mlp = PixelMLP(width, config.pixel_mlp_size, operations=operations, **kind)
        self.adaLN_modulation = nn.Sequential(operations.Linear(config.hidden_size, 6 * patch_width, **kind))

    def forward(self, u: Tensor, s: Tensor, rope: Rotation, attention: Attention) -> Tensor:
        """u [B, L, N, P] float32, s [B, L, D] in the compute dtype -> u."""
        pixels, width = u.shape[2:]
        values = self.adaLN_modulation(s).unflatten(-1, (pixels, 6 * width))  # every pixel has its own six vectors
        attn, mlp = split_modulation(values)
        x = attn.apply(rms_norm(self.norm1, u), s.dtype).flatten(-2)  # [B, L, N * P], pixel-major
        x = self.expand_from_attn(self.attn(self.compress_to_attn(x), rope, attention))
        u = torch.addcmul(u, attn.gate, x.unflatten(-1, (pixels, width)))
        return torch.addcmul(u, mlp.gate, self.mlp(mlp.apply(rms_norm(self.norm2, u), s.dtype)))
