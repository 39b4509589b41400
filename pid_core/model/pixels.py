"""The pixel blocks: every pixel with a modulation of its own, and attention between whole patches.

Shapes: B batch, L image tokens, N = patch_size**2 pixels per token, P pixel width, A attention width.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention
from .blocks import make_norm
from .config import PiDConfig
from .ops import Joint, NoJoint, pixel_begin, pixel_end
from .positions import Rotation


class PixelAttention(nn.Module):
    """Weights of the self-attention over the image tokens, used inside a pixel block."""

    def __init__(self, width: int, num_heads: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.num_heads = num_heads
        factory_kwargs = {"dtype": dtype, "device": device}
        self.qkv = operations.Linear(width, 3 * width, bias=False, **factory_kwargs)
        self.q_norm = make_norm(width // num_heads, device=device, operations=operations)
        self.k_norm = make_norm(width // num_heads, device=device, operations=operations)
        self.proj = operations.Linear(width, width, **factory_kwargs)


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
        factory_kwargs = {"dtype": dtype, "device": device}
        width, attn_width = config.pixel_hidden_size, config.pixel_attn_size
        patch_width = width * config.patch_size**2
        self._joint = Joint if config.attends else NoJoint
        self.norm1 = make_norm(width, device=device, operations=operations)
        self.norm2 = make_norm(width, device=device, operations=operations)
        self.compress_to_attn = operations.Linear(patch_width, attn_width, **factory_kwargs)
        self.attn = PixelAttention(attn_width, config.pixel_num_heads, operations=operations, **factory_kwargs)
        self.expand_from_attn = operations.Linear(attn_width, patch_width, **factory_kwargs)
        self.mlp = PixelMLP(width, config.pixel_mlp_size, operations=operations, **factory_kwargs)
        self.adaLN_modulation = nn.Sequential(operations.Linear(config.hidden_size, 6 * patch_width, **factory_kwargs))

    def forward(self, u: Tensor, s: Tensor, rope: Rotation, attention: Attention) -> Tensor:
        """u [B, L, N, P] float32, s [B, L, D] in the compute dtype -> u."""
        modulation = self.adaLN_modulation(s)
        joint = self.joint(s)
        joint.put(0, partial(self.begin, u, modulation), self.attn.q_norm, self.attn.k_norm, rope)
        return self.end(u, joint.attend(attention), modulation)

    def joint(self, s: Tensor) -> Joint:
        """An empty q, k and v of the attention, for the tokens of s."""
        return self._joint(s, self.attn.num_heads, s.shape[1], self.attn.qkv.in_features // self.attn.num_heads)

    def begin(self, u: Tensor, modulation: Tensor) -> Tensor:
        """Up to the attention: u [B, L, N, P] float32, modulation [B, L, N * 6 * P] -> qkv [B, L, 3 A]."""
        return self.attn.qkv(self.compress_to_attn(pixel_begin(u, self.norm1, modulation)))

    def end(self, u: Tensor, attended: Tensor, modulation: Tensor) -> Tensor:
        """From the attention's result [B, L, heads, A / heads] on: u -> u."""
        attended = self.expand_from_attn(self.attn.proj(attended.flatten(2)))
        return pixel_end(u, attended, modulation, self.norm2, self.mlp)
