"""The patch blocks: joint attention over caption and patches. And what they share with the pixel blocks.

Precision (reference: bfloat16 autocast over float32 parameters): matrix products run in the dtype of the conditioning
vector `c`; norms, RoPE, gates and both residual streams are float32.
Shapes: B batch, L image tokens, T caption tokens, D hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention
from .chunks import map_tokens
from .config import PiDConfig
from .positions import Rotation, rotate


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

    def add(self, stream: Tensor, x: Tensor) -> Tensor:
        """The residual line's end: stream [float32] + gate * x."""
        return torch.addcmul(stream, self.gate.float(), x.float())


def project_heads(
    x: Tensor, qkv: nn.Module, q_norm: nn.Module, k_norm: nn.Module, rope: Rotation | None, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """[B, L, D] -> normalised and turned q and k, and v: each [B, heads, L, head_dim] in x's dtype."""
    q, k, v = qkv(x).unflatten(-1, (3, num_heads, -1)).unbind(2)  # [B, L, heads, head_dim]
    dtype = v.dtype
    q, k = rms_norm(q_norm, q), rms_norm(k_norm, k)
    if rope is not None:
        q, k = rotate(q, rope), rotate(k, rope)
    # a copy of v, for the view would hold the memory of all three
    return q.to(dtype).transpose(1, 2), k.to(dtype).transpose(1, 2), v.transpose(1, 2).contiguous()


def join_heads(parts: list[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
    """The q, k, v of several stretches of tokens -> q, k, v of all; `parts` is used up, to never hold all twice."""
    columns = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()
    return [torch.cat(columns.pop(0), dim=2) for _ in range(len(columns))]


def merge_heads(x: Tensor) -> Tensor:
    """[B, heads, L, head_dim] -> [B, L, D]."""
    return x.transpose(1, 2).flatten(2)


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
    """Weights of full attention over [caption, image], with weights of their own for each stream: y and x."""

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

    def heads_x(self, x: Tensor, rope: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        return project_heads(x, self.qkv_x, self.q_norm_x, self.k_norm_x, rope, self.num_heads)

    def heads_y(self, y: Tensor, rope: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        return project_heads(y, self.qkv_y, self.q_norm_y, self.k_norm_y, rope, self.num_heads)


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
        spans: list[slice],
        with_y: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """s [B, L, D] and y [B, T, D] float32, c [B, 1, D] -> s and y. `spans`: the chunks s is worked on in.

        Outside autograd s may be overwritten.
        """
        attn_x, mlp_x = split_modulation(self.adaLN_modulation_img(c))  # each [B, 1, D]
        attn_y, mlp_y = split_modulation(self.adaLN_modulation_txt(c))

        qy, ky, vy = self.attn.heads_y(attn_y.apply(rms_norm(self.norm_y1, y), c.dtype), rope_y)
        parts = [(qy if with_y else qy[:, :, :0], ky, vy)]
        for span in spans:
            x = attn_x.apply(rms_norm(self.norm_x1, s[:, span]), c.dtype)
            parts.append(self.attn.heads_x(x, tuple(table[span] for table in rope_x)))
        out = attention(*join_heads(parts))  # [B, heads, T + L, head_dim], without T after the last block
        tokens = y.shape[1] if with_y else 0

        def finish(s: Tensor, out: Tensor) -> Tensor:
            s = attn_x.add(s, self.attn.proj_x(out.flatten(2)))
            return mlp_x.add(s, self.mlp_x(mlp_x.apply(rms_norm(self.norm_x2, s), c.dtype)))

        s = map_tokens(finish, spans, s, out[:, :, tokens:].transpose(1, 2), reuse=True)
        if with_y:
            y = attn_y.add(y, self.attn.proj_y(merge_heads(out[:, :, :tokens])))
            y = mlp_y.add(y, self.mlp_y(mlp_y.apply(rms_norm(self.norm_y2, y), c.dtype)))
        return s, y


def split_modulation(values: Tensor) -> tuple[Modulation, Modulation]:
    """[..., 6 * width] -> the attention line's and the MLP line's modulation."""
    parts = values.float().chunk(6, dim=-1)
    return Modulation(*parts[:3]), Modulation(*parts[3:])
