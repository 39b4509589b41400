"""Softmax attention for networks outside ComfyUI."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [B, heads, L, head_dim] -> shape of q

SCORE_BYTES = 4 << 20  # what the scores of one chunk of queries may take: they should stay in the CPU's cache


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain softmax attention, scale 1 / sqrt(head_dim), no mask. q may be shorter than k and v."""
    # under autograd and in a compiled graph SDPA is what both know how to handle
    plain = torch.is_grad_enabled() or torch.compiler.is_compiling()
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not plain and _products_beat_sdpa():
        return attend_by_products(q, k, v)
    return sdpa(q, k, v)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by PyTorch's own function, whatever the device."""
    return F.scaled_dot_product_attention(q, k, v)


def attend_by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as matrix product, softmax, matrix product, for a chunk of one head's queries at a time.

    The scores are rounded to q's dtype, as ComfyUI's own attention on a CPU does. The result is laid out as
    [B, L, heads, head_dim], what the output projection wants.
    """
    batch, heads, queries, head_dim = q.shape
    out = q.new_empty(batch, queries, heads, head_dim).transpose(1, 2)
    rows = max(64, SCORE_BYTES // (k.shape[2] * q.element_size()))
    scores = q.new_empty(min(rows, queries), k.shape[2])
    for b, h, start in itertools.product(range(batch), range(heads), range(0, queries, rows)):
        part = q[b, h, start : start + rows]
        s = scores[: len(part)]
        torch.addmm(s, part, k[b, h].T, beta=0, alpha=head_dim**-0.5, out=s)
        torch.softmax(s, -1, out=s)
        torch.mm(s, v[b, h], out=out[b, h, start : start + rows])
    return out


@functools.cache
def _products_beat_sdpa() -> bool:
    """PyTorch's CPU kernel runs bfloat16 attention no faster than float32, unless there are AMX tiles."""
    cpu = torch.cpu
    has = [getattr(cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return has == [True, False]
