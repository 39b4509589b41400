"""Triton kernels of the network's elementwise work: each reads its inputs once and writes its results once.

Every public function launches one kernel; `ops.py` says in plain PyTorch what it computes. Arithmetic is float32, and
values are rounded to the compute dtype where the plain definition rounds them. Streams, norm weights and tables are
float32. Rows are contiguous; a chunk of a batch may have any batch stride.
Shapes: B batch, L tokens, D width, N pixels per token, P pixel width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .fused import GROUP_PART

EPS = tl.constexpr(1e-6)  # of every RMSNorm of the network
PIXELS = 128  # pixels per program
MLP_PIXELS = 64  # the same where a small MLP takes the registers
ELEMENTS = 2048  # elements per program


@triton.jit
def _normed(x, weight, width):
    return x * tl.rsqrt(tl.sum(x * x, axis=0) / width + EPS) * weight


@triton.jit
def _modulated(x, shift, scale):
    return shift + x * (1 + scale)


@triton.jit
def _norm_modulate(
    stream, weight, shift, scale, out, tokens, stream_batch, line_batch, D: tl.constexpr, W: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    b = row // tokens
    i = tl.arange(0, W)
    mask = i < D
    x = tl.load(stream + b * stream_batch + (row - b * tokens) * D + i, mask=mask, other=0.0)
    y = _normed(x, tl.load(weight + i, mask=mask, other=0.0), D)
    line = b * line_batch + i
    y = _modulated(y, tl.load(shift + line, mask=mask, other=0.0), tl.load(scale + line, mask=mask, other=0.0))
    tl.store(out + row * D + i, y.to(out.dtype.element_ty), mask=mask)


def norm_modulate(stream: Tensor, weight: Tensor, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """stream [B, L, D] -> shift + norm(stream) * (1 + scale), in dtype; shift and scale [B, 1, D] of one tensor."""
    batch, tokens, width = stream.shape
    out = torch.empty(batch, tokens, width, dtype=dtype, device=stream.device)
    sizes = tokens, stream.stride(0), shift.stride(0), width, triton.next_power_of_2(width)
    _norm_modulate[(batch * tokens,)](stream, weight, shift, scale, out, *sizes)
    return out


@triton.jit
def _gate_add(stream, gate, x, tokens, stream_batch, gate_batch, D: tl.constexpr, W: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    b = row // tokens
    i = tl.arange(0, W)
    mask = i < D
    at = stream + b * stream_batch + (row - b * tokens) * D + i
    added = tl.load(gate + b * gate_batch + i, mask=mask) * tl.load(x + row * D + i, mask=mask).to(tl.float32)
    tl.store(at, tl.load(at, mask=mask) + added, mask=mask)


def gate_add(stream: Tensor, gate: Tensor, x: Tensor) -> None:
    """stream [B, L, D] += gate * x, in place; gate [B, 1, D]."""
    batch, tokens, width = stream.shape
    sizes = tokens, stream.stride(0), gate.stride(0), width, triton.next_power_of_2(width)
    _gate_add[(batch * tokens,)](stream, gate, x, *sizes)


@triton.jit
def _gate_add_norm_modulate(
    stream, gate, x, weight, shift, scale, out, tokens, stream_batch, line_batch, D: tl.constexpr, W: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    b = row // tokens
    i = tl.arange(0, W)
    mask = i < D
    line = b * line_batch + i
    at = stream + b * stream_batch + (row - b * tokens) * D + i
    s = tl.load(at, mask=mask, other=0.0)
    s += tl.load(gate + line, mask=mask, other=0.0) * tl.load(x + row * D + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, s, mask=mask)
    y = _normed(s, tl.load(weight + i, mask=mask, other=0.0), D)
    y = _modulated(y, tl.load(shift + line, mask=mask, other=0.0), tl.load(scale + line, mask=mask, other=0.0))
    tl.store(out + row * D + i, y.to(out.dtype.element_ty), mask=mask)


def gate_add_norm_modulate(
    stream: Tensor, gate: Tensor, x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor
) -> Tensor:
    """`gate_add`, and `norm_modulate` of what the stream is then, in x's dtype."""
    batch, tokens, width = stream.shape
    out = torch.empty_like(x)
    sizes = tokens, stream.stride(0), gate.stride(0), width, triton.next_power_of_2(width)
    _gate_add_norm_modulate[(batch * tokens,)](stream, gate, x, weight, shift, scale, out, *sizes)
    return out


@triton.jit
def _turned(
    x, weight, cos, sin, H: tl.constexpr, D: tl.constexpr, ROPE: tl.constexpr, HP: tl.constexpr, DP: tl.constexpr
):
    """One token's heads [HP, DP], of which D values are real: normalised, and turned by its angles [DP / 2]."""
    x = x * tl.rsqrt(tl.sum(x * x, axis=1) / D + EPS)[:, None] * weight[None, :]
    if ROPE:
        a, b = tl.split(tl.reshape(x, (HP, DP // 2, 2)))
        x = tl.reshape(tl.join(a * cos[None, :] - b * sin[None, :], a * sin[None, :] + b * cos[None, :]), (HP, DP))
    return x


@triton.jit
def _place_heads(
    qkv, q_weight, k_weight, cos, sin, q, k, v, tokens, batch_stride, head_stride, token_stride,
    H: tl.constexpr, D: tl.constexpr, ROPE: tl.constexpr, HP: tl.constexpr, DP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    b = row // tokens
    token = row - b * tokens
    h = tl.arange(0, HP)[:, None]
    i = tl.arange(0, DP)
    j = tl.arange(0, DP // 2)
    mask = (h < H) & (i < D)[None, :]
    source = qkv + row * (3 * H * D) + h * D + i[None, :]
    target = b * batch_stride + token * token_stride + h * head_stride + i[None, :]
    if ROPE:
        c = tl.load(cos + token * (D // 2) + j, mask=j < D // 2, other=0.0)
        s = tl.load(sin + token * (D // 2) + j, mask=j < D // 2, other=0.0)
    else:
        c = j
        s = j
    x = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    x = _turned(x, tl.load(q_weight + i, mask=i < D, other=0.0), c, s, H, D, ROPE, HP, DP)
    tl.store(q + target, x.to(q.dtype.element_ty), mask=mask)
    x = tl.load(source + H * D, mask=mask, other=0.0).to(tl.float32)
    x = _turned(x, tl.load(k_weight + i, mask=i < D, other=0.0), c, s, H, D, ROPE, HP, DP)
    tl.store(k + target, x.to(k.dtype.element_ty), mask=mask)
    tl.store(v + target, tl.load(source + 2 * H * D, mask=mask, other=0.0), mask=mask)


def place_heads(
    qkv: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
) -> None:
    """qkv [B, L, 3 * heads * d] -> q and k normalised and turned, and v, written into [B, heads, L, d] of one layout.

    cos and sin [L, d / 2], or None where nothing is turned.
    """
    batch, heads, tokens, width = q.shape
    turned = cos is not None
    sizes = tokens, q.stride(0), q.stride(1), q.stride(2), heads, width, turned
    padded = triton.next_power_of_2(heads), triton.next_power_of_2(width)
    tables = (cos, sin) if turned else (q_weight, q_weight)
    _place_heads[(batch * tokens,)](qkv, q_weight, k_weight, *tables, q, k, v, *sizes, *padded, num_warps=2)


@triton.jit
def _silu(x):
    return x / (1 + tl.exp(-x))


@triton.jit
def _silu_mul(a, b, out, count, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    x = _silu(tl.load(a + i, mask=mask, other=0.0).to(tl.float32)).to(out.dtype.element_ty).to(tl.float32)
    x *= tl.load(b + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + i, x.to(out.dtype.element_ty), mask=mask)


def silu_mul(a: Tensor, b: Tensor) -> Tensor:
    """silu(a) * b, both contiguous."""
    out = torch.empty_like(a)
    _silu_mul[(triton.cdiv(a.numel(), ELEMENTS),)](a, b, out, a.numel(), ELEMENTS)
    return out


@triton.jit
def _token_gate(
    stream, te, features, weight, bias, offset, out, tokens, stream_batch,
    ACTIVATED: tl.constexpr, D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    b = row // tokens
    i = tl.arange(0, W)
    mask = i < D
    at = b * stream_batch + (row - b * tokens) * D + i
    s = tl.load(stream + at, mask=mask, other=0.0)
    if ACTIVATED:
        s = _silu(s + tl.load(te + b * D + i, mask=mask, other=0.0))
    f = tl.load(features + row * D + i, mask=mask, other=0.0)
    kind = f.dtype
    f = f.to(tl.float32)
    logit = s.to(kind).to(tl.float32) * tl.load(weight + i, mask=mask, other=0.0).to(tl.float32)
    logit += f * tl.load(weight + D + i, mask=mask, other=0.0).to(tl.float32)
    logit = (tl.sum(logit, axis=0) + tl.load(bias).to(tl.float32)).to(kind).to(tl.float32)
    gate = 1 / (1 + tl.exp(tl.load(offset + row) - logit))
    s += gate * f
    if ACTIVATED:
        tl.store(out + row * D + i, s.to(kind), mask=mask)
    else:
        tl.store(out + at, s, mask=mask)


def token_gate(stream: Tensor, features: Tensor, weight: Tensor, bias: Tensor, offset: Tensor) -> None:
    """stream [B, L, D] += sigmoid([stream ; features] . weight + bias - offset) * features, in place.

    features [B, L, D] and weight [1, 2 D], bias [1] in the compute dtype; offset [B, L or 1, 1].
    """
    batch, tokens, width = stream.shape
    sizes = tokens, stream.stride(0), False, width, triton.next_power_of_2(width)
    offset = offset.expand(batch, tokens, 1).contiguous()
    _token_gate[(batch * tokens,)](stream, stream, features, weight, bias, offset, stream, *sizes)


def condition_gate(
    stream: Tensor, te: Tensor, features: Tensor, weight: Tensor, bias: Tensor, offset: Tensor
) -> Tensor:
    """What `token_gate` makes of silu(te + stream), in the compute dtype; te [B, 1, D] float32. stream stays."""
    batch, tokens, width = stream.shape
    out = torch.empty_like(features)
    sizes = tokens, stream.stride(0), True, width, triton.next_power_of_2(width)
    offset = offset.expand(batch, tokens, 1).contiguous()
    _token_gate[(batch * tokens,)](stream, te, features, weight, bias, offset, out, *sizes)
    return out


@triton.jit
def _pixel_embed(
    x, weight, bias, down, across, out, start, tokens, cols, count, batch_stride, channel_stride, row_stride,
    C: tl.constexpr, P: tl.constexpr, PATCH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = p < count
    j = tl.arange(0, P)[None, :]
    token = start + p // (PATCH * PATCH) % tokens
    row = token // cols * PATCH + p // PATCH % PATCH
    col = token % cols * PATCH + p % PATCH
    at = x + p // (PATCH * PATCH * tokens) * batch_stride + row * row_stride + col
    half = j < P // 2
    u = tl.load(bias + j) + tl.zeros((BLOCK, P), tl.float32)
    for c in tl.static_range(C):
        u += tl.load(at + c * channel_stride, mask=mask, other=0.0)[:, None] * tl.load(weight + j * C + c)
    u += tl.load(across + col[:, None] * (P // 2) + j, mask=mask[:, None] & half, other=0.0)
    u += tl.load(down + row[:, None] * (P // 2) + j - P // 2, mask=mask[:, None] & (j >= P // 2), other=0.0)
    tl.store(out + p[:, None] * P + j, u, mask=mask[:, None])


def pixel_embed(
    x: Tensor, weight: Tensor, bias: Tensor, down: Tensor, across: Tensor, patch: int, start: int, stop: int
) -> Tensor:
    """The pixel stream [B, stop - start, N, P] of these tokens of the image x [B, C, H, W] float32."""
    batch, channels, _, width = x.shape
    if x.stride(3) != 1:
        x = x.contiguous()
    out = torch.empty(batch, stop - start, patch**2, weight.shape[0], dtype=torch.float32, device=x.device)
    count = out.numel() // weight.shape[0]
    sizes = start, stop - start, width // patch, count, x.stride(0), x.stride(1), x.stride(2)
    grid = (triton.cdiv(count, PIXELS),)
    _pixel_embed[grid](x, weight, bias, down, across, out, *sizes, channels, weight.shape[0], patch, PIXELS)
    return out


@triton.jit
def _pixel_normed(x, weight, P: tl.constexpr):
    return x * tl.rsqrt(tl.sum(x * x, axis=1) / P + EPS)[:, None] * weight


@triton.jit
def _pixel_begin(u, weight, modulation, out, count, P: tl.constexpr, BLOCK: tl.constexpr):
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    c = tl.arange(0, P)[None, :]
    mask = p < count
    x = _pixel_normed(tl.load(u + p * P + c, mask=mask, other=0.0), tl.load(weight + c), P)
    line = modulation + p * (6 * P) + c
    shift = tl.load(line, mask=mask, other=0.0).to(tl.float32)
    x = _modulated(x, shift, tl.load(line + P, mask=mask, other=0.0).to(tl.float32))
    tl.store(out + p * P + c, x.to(out.dtype.element_ty), mask=mask)


def pixel_begin(u: Tensor, weight: Tensor, modulation: Tensor) -> Tensor:
    """u [B, L, N, P], normalised and modulated by the first two of modulation's six vectors: [B, L, N * P].

    modulation [B, L, N * 6 * P] in the compute dtype, which is the result's.
    """
    batch, tokens, pixels, width = u.shape
    out = torch.empty(batch, tokens, pixels * width, dtype=modulation.dtype, device=u.device)
    count = u.numel() // width
    _pixel_begin[(triton.cdiv(count, PIXELS),)](u, weight, modulation, out, count, width, PIXELS)
    return out


@triton.jit
def _pixel_end(
    u, attended, modulation, weight, w1, b1, w2, b2, count, P: tl.constexpr, M: tl.constexpr, BLOCK: tl.constexpr
):
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    c = tl.arange(0, P)[None, :]
    j = tl.arange(0, M)
    mask = p < count
    kind = w1.dtype.element_ty
    line = modulation + p * (6 * P) + c
    x = tl.load(u + p * P + c, mask=mask, other=0.0)
    gate = tl.load(line + 2 * P, mask=mask, other=0.0).to(tl.float32)
    x += gate * tl.load(attended + p * P + c, mask=mask, other=0.0).to(tl.float32)
    shift = tl.load(line + 3 * P, mask=mask, other=0.0).to(tl.float32)
    y = _pixel_normed(x, tl.load(weight + c), P)
    y = _modulated(y, shift, tl.load(line + 4 * P, mask=mask, other=0.0).to(tl.float32))
    first = tl.load(w1 + j[None, :] * P + tl.arange(0, P)[:, None])  # [P, M]
    h = tl.dot(y.to(kind), first, input_precision="ieee") + tl.load(b1 + j)[None, :].to(tl.float32)
    h = h.to(kind).to(tl.float32)
    h = 0.5 * h * (1 + tl.erf(h * 0.7071067811865476))
    second = tl.load(w2 + c * M + j[:, None])  # [M, P]
    y = tl.dot(h.to(kind), second, input_precision="ieee") + tl.load(b2 + c).to(tl.float32)
    x += tl.load(line + 5 * P, mask=mask, other=0.0).to(tl.float32) * y.to(kind).to(tl.float32)
    tl.store(u + p * P + c, x, mask=mask)


def pixel_end(
    u: Tensor, attended: Tensor, modulation: Tensor, weight: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> None:
    """A pixel block from its attention's result on, in place: u += gate * attended; u += gate * MLP(modulated norm).

    u [B, L, N, P]; attended [B, L, N * P]; modulation [B, L, N * 6 * P], of which the last four vectors are read; the
    MLP's weights [M, P], [M], [P, M], [P]. All but u and the norm's weight are in the compute dtype.
    """
    count, width = u.numel() // u.shape[-1], u.shape[-1]
    sizes = count, width, w1.shape[0], MLP_PIXELS
    _pixel_end[(triton.cdiv(count, MLP_PIXELS),)](u, attended, modulation, weight, w1, b1, w2, b2, *sizes)


@triton.jit
def _pixel_out(u, norm, weight, bias, out, count, C: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, P)[None, :]
    mask = p < count
    x = _pixel_normed(tl.load(u + p[:, None] * P + c, mask=mask[:, None], other=0.0), tl.load(norm + c), P)
    for k in tl.static_range(C):
        value = tl.sum(x * tl.load(weight + k * P + c), axis=1) + tl.load(bias + k)
        tl.store(out + p * C + k, value, mask=mask)


def pixel_out(u: Tensor, norm: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """u [B, L, N, P], normalised -> weight [C, P] and bias [C], float32: [B, L, N, C]."""
    channels, width = weight.shape
    out = torch.empty(*u.shape[:-1], channels, dtype=torch.float32, device=u.device)
    count = u.numel() // width
    _pixel_out[(triton.cdiv(count, PIXELS),)](u, norm, weight, bias, out, count, channels, width, PIXELS)
    return out


@triton.jit
def _group_moments(x, means, squares, size, parts, BLOCK: tl.constexpr):
    group = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    i = part.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    value = tl.load(x + group * size + i, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=0) / tl.minimum(size - part * BLOCK, BLOCK)
    off = tl.where(mask, value - mean, 0.0)
    tl.store(means + group * parts + part, mean)
    tl.store(squares + group * parts + part, tl.sum(off * off, axis=0))


def group_moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Of every part of each group's values: their mean, and the sum of their squared distances from it.

    x [B, C, H, W], contiguous -> two times [B, groups, parts] float32; a part holds GROUP_PART values, the last fewer.
    """
    size = x[0].numel() // groups
    parts = triton.cdiv(size, GROUP_PART)
    means, squares = (torch.empty(x.shape[0], groups, parts, dtype=torch.float32, device=x.device) for _ in range(2))
    _group_moments[(x.shape[0] * groups, parts)](x, means, squares, size, parts, GROUP_PART, num_warps=8)
    return means, squares


@triton.jit
def _scale_silu(x, scale, shift, out, size, BLOCK: tl.constexpr):
    channel = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    y = tl.load(x + channel * size + i, mask=mask, other=0.0).to(tl.float32)
    y = _silu(y * tl.load(scale + channel) + tl.load(shift + channel))
    tl.store(out + channel * size + i, y.to(out.dtype.element_ty), mask=mask)


def scale_silu(x: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """silu(x * scale + shift) in dtype; x [B, C, H, W], contiguous, scale and shift [B, C] float32."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    size = x.shape[2] * x.shape[3]
    _scale_silu[(scale.numel(), triton.cdiv(size, ELEMENTS))](x, scale, shift, out, size, ELEMENTS)
    return out
