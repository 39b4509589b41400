"""The pixel path: from the patch stream to the velocity, every pixel with a modulation of its own.

All of it is local to a patch but the blocks' attention, so it runs in chunks of tokens: each pass ends one block and
begins the next up to its attention. What a later pass needs again is kept, or made again where it would be too large.
Shapes: B batch, L image tokens, N = patch_size**2 pixels per token, P pixel width, A attention width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..progress import OnPart
from .attention import Attention
from .blocks import make_norm
from .config import PiDConfig
from .fused import COMPILED, COMPILED_KERNELS, fit_registers
from .ops import Joint, kept_modulation, pixel_begin, pixel_end
from .positions import Rotation

# What may be kept of the pixel stream and the modulation between two passes where nobody planned for the memory there
# is. Enough for 2304 x 2304 pixels of the released sizes in bfloat16.
KEPT_BYTES = 3 << 29
# A chunk's values are the largest part of what a small image needs at once, so it is cut at least so often. The
# kernels need less, and a card wants large products: on an H100 a step of 1024 pixels takes 19.4 ms in two chunks and
# 23.8 ms in eight.
PIXEL_CHUNKS = {"kernels": 2}
SMALL_CHUNKS = 8


# What runs the pixel path where its kernels do not take its widths.
PLAIN = {"kernels": "cuda", COMPILED_KERNELS: COMPILED}


class Kept(NamedTuple):
    """Whether the pixel stream, and the modulation of the block under way, are kept between two passes."""

    stream: bool
    modulation: bool


# From the least work to the least memory.
KEEPINGS = Kept(True, True), Kept(True, False), Kept(False, False)


def pixel_kind(config: PiDConfig, kind: str) -> str:
    """What `fused.kind_of` said, for the pixel path: its kernels do not take every width."""
    fit = fit_registers(config.pixel_hidden_size, config.pixel_mlp_size)
    return kind if fit else PLAIN.get(kind, kind)


def pixel_chunks(kind: str) -> int:
    """Into how many chunks the pixel path is cut at least; kind: what `fused.kind_of` calls the device."""
    return PIXEL_CHUNKS.get(kind, SMALL_CHUNKS)


def what_is_kept(config: PiDConfig, tokens: int, dtype_bytes: int, kind: str) -> Kept:
    """The most that fits `KEPT_BYTES`; tokens of all images of the batch. kind: see `pixel_kind`."""
    stream, modulation = kept_bytes(config, dtype_bytes, kind)
    return Kept(tokens * stream <= KEPT_BYTES, tokens * (stream + modulation) <= KEPT_BYTES)


def kept_bytes(config: PiDConfig, dtype_bytes: int, kind: str) -> tuple[int, int]:
    """Bytes per token: of the pixel stream, and of what `ops.kept_modulation` keeps. kind: see `pixel_kind`."""
    values = config.patch_size**2 * config.pixel_hidden_size
    return 4 * values, (6 if kind == "kernels" else 4) * values * dtype_bytes


class PixelAttention(nn.Module):
    """Weights of the self-attention over the image tokens, used inside a pixel block."""

    def __init__(self, width: int, num_heads: int, *, dtype=None, device=None, operations=nn):
        super().__init__()
        self.num_heads = num_heads
        kind = {"dtype": dtype, "device": device}
        self.qkv = operations.Linear(width, 3 * width, bias=False, **kind)
        self.q_norm = make_norm(width // num_heads, device=device, operations=operations)
        self.k_norm = make_norm(width // num_heads, device=device, operations=operations)
        self.proj = operations.Linear(width, width, **kind)


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
        """The whole block: u [B, L, N, P] float32, which may be overwritten, s [B, L, D] -> u."""
        modulation = self.adaLN_modulation(s)
        joint = Joint(s, self.attn.num_heads, u.shape[1], self.attn.qkv.in_features // self.attn.num_heads)
        joint.put(0, self.begin(u, modulation), self.attn.q_norm, self.attn.k_norm, rope)
        modulation = kept_modulation(u, modulation, self.norm2, self.mlp)
        return self.end(u, joint.attend(attention), modulation)

    def begin(self, u: Tensor, modulation: Tensor) -> Tensor:
        """Up to the attention: u [B, L, N, P] float32, modulation [B, L, N * 6 * P] -> qkv [B, L, 3 A]."""
        return self.attn.qkv(self.compress_to_attn(pixel_begin(u, self.norm1, modulation)))

    def end(self, u: Tensor, attended: Tensor, modulation: Tensor) -> Tensor:
        """From the attention's result [B, L, heads, A / heads] on: u -> u, which may be overwritten."""
        attended = self.expand_from_attn(self.attn.proj(attended.flatten(2)))
        return pixel_end(u, attended, modulation, self.norm2, self.mlp)


def refine_pixels(
    blocks: Sequence[PixelBlock],
    s: Tensor,
    embed: Callable[[slice], Tensor],
    finish: Callable[[Tensor], Tensor],
    rope: Rotation,
    attention: Attention,
    spans: list[slice],
    kept: Kept,
    on_part: OnPart | None = None,
    call: Callable[..., Tensor] = lambda block, *given: block(*given),
) -> Tensor:
    """Run the pixel blocks over all tokens, chunk by chunk.

    s: [B, L, D] in the compute dtype. embed(span): the pixel stream of these tokens, [B, l, N, P] float32.
    finish(u): what becomes of it after the last block, [B, l, ...]. Returns that for all tokens.
    on_part: told after every chunk which fraction is done. call(block, ...): how a whole block is called, where all
    tokens are one chunk.
    """
    if len(spans) == 1:
        u = embed(spans[0])
        for depth, block in enumerate(blocks, start=1):
            u = call(block, u, s, rope, attention)
            if on_part is not None:
                on_part(depth / (len(blocks) + 1))
        u = finish(u)
        if on_part is not None:
            on_part(1.0)
        return u

    attended, streams, modulations = {}, {}, {}

    def stream(chunk: int, depth: int) -> Tensor:
        """The chunk's pixels after `depth` blocks."""
        span = spans[chunk]
        if depth == 0:
            return embed(span)
        block = blocks[depth - 1]
        return block.end(
            streams.pop(chunk) if kept.stream else stream(chunk, depth - 1),
            attended[depth - 1][:, span],
            modulations.pop(chunk) if kept.modulation else block.adaLN_modulation(s[:, span]),
        )

    def passed(chunk: int, depth: int) -> None:
        if on_part is not None:
            on_part((depth + (chunk + 1) / len(spans)) / (len(blocks) + 1))

    def advance(chunk: int, depth: int) -> Tensor:
        """Into the block behind `depth` blocks: the chunk's qkv. A function, so that its locals are let go."""
        u, block = stream(chunk, depth), blocks[depth]
        modulation = block.adaLN_modulation(s[:, spans[chunk]])
        qkv = block.begin(u, modulation)
        if kept.stream:
            streams[chunk] = u
        if kept.modulation:
            modulations[chunk] = kept_modulation(u, modulation, block.norm2, block.mlp)
        passed(chunk, depth)
        return qkv

    def end(chunk: int) -> Tensor:
        out = finish(stream(chunk, len(blocks)))
        passed(chunk, len(blocks))
        return out

    for depth, block in enumerate(blocks):
        attn, tokens = block.attn, spans[-1].stop
        joint = Joint(s, attn.num_heads, tokens, attn.qkv.in_features // attn.num_heads)
        for chunk, span in enumerate(spans):
            joint.put(span.start, advance(chunk, depth), attn.q_norm, attn.k_norm, tuple(table[span] for table in rope))
        if kept.stream:
            attended.clear()
        attended[depth] = joint.attend(attention)
    return torch.cat([end(chunk) for chunk in range(len(spans))], dim=1)
