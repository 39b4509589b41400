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

from .attention import Attention
from .blocks import Modulation, join_heads, make_norm, merge_heads, project_heads, rms_norm
from .config import PiDConfig
from .positions import Rotation
from .progress import OnPart

# What may be kept of the pixel stream and the modulation between two passes. Enough for 2304 x 2304 pixels of the
# released sizes in bfloat16; beyond it time is the smaller cost, since attention then outweighs all else.
KEPT_BYTES = 3 << 29
# A chunk's values are the largest part of what a small image needs at once, so it is cut at least so often.
PIXEL_CHUNKS = 8


class Kept(NamedTuple):
    """Whether the pixel stream, and the modulation of the block under way, are kept between two passes."""

    stream: bool
    modulation: bool


def what_is_kept(config: PiDConfig, tokens: int, dtype_bytes: int) -> Kept:
    """The most that fits `KEPT_BYTES`; tokens of all images of the batch."""
    stream, modulation = kept_bytes(config, dtype_bytes)
    return Kept(tokens * stream <= KEPT_BYTES, tokens * (stream + modulation) <= KEPT_BYTES)


def kept_bytes(config: PiDConfig, dtype_bytes: int) -> tuple[int, int]:
    """Bytes per token: of the pixel stream, and of the four vectors of its modulation that come after attention."""
    values = config.patch_size**2 * config.pixel_hidden_size
    return 4 * values, 4 * values * dtype_bytes


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

    def heads(self, x: Tensor, rope: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        return project_heads(x, self.qkv, self.q_norm, self.k_norm, rope, self.num_heads)


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
        self.pixel_width = width
        self.norm1 = make_norm(width, device=device, operations=operations)
        self.norm2 = make_norm(width, device=device, operations=operations)
        self.compress_to_attn = operations.Linear(patch_width, attn_width, **kind)
        self.attn = PixelAttention(attn_width, config.pixel_num_heads, operations=operations, **kind)
        self.expand_from_attn = operations.Linear(attn_width, patch_width, **kind)
        self.mlp = PixelMLP(width, config.pixel_mlp_size, operations=operations, **kind)
        self.adaLN_modulation = nn.Sequential(operations.Linear(config.hidden_size, 6 * patch_width, **kind))

    def modulate(self, s: Tensor) -> list[Tensor]:
        """[B, L, D] -> shift, scale, gate of attention, then of the MLP: each [B, L, N, P], views of one tensor."""
        return list(self.adaLN_modulation(s).unflatten(-1, (-1, 6, self.pixel_width)).unbind(-2))

    def begin(self, u: Tensor, shift: Tensor, scale: Tensor, rope: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Up to the attention: u [B, L, N, P] float32 -> q, k, v [B, heads, L, A / heads]."""
        x = Modulation(shift, scale, shift).apply(rms_norm(self.norm1, u), shift.dtype).flatten(-2)
        return self.attn.heads(self.compress_to_attn(x), rope)

    def end(self, u: Tensor, attended: Tensor, modulation: list[Tensor]) -> Tensor:
        """From the attention's result [B, heads, L, A / heads] on: u -> u.

        modulation: attention's gate and the MLP's three; the list is used up, to hold little while the MLP runs.
        """
        gate = modulation.pop(0)
        x = self.expand_from_attn(self.attn.proj(merge_heads(attended))).view(u.shape)
        u = torch.addcmul(u, gate.float(), x.float())
        del x, gate
        line = Modulation(*modulation)
        return line.add(u, self.mlp(line.apply(rms_norm(self.norm2, u), line.shift.dtype)))


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
) -> Tensor:
    """Run the pixel blocks over all tokens, chunk by chunk.

    s: [B, L, D] in the compute dtype. embed(span): the pixel stream of these tokens, [B, l, N, P] float32.
    finish(u): what becomes of it after the last block, [B, l, ...]. Returns that for all tokens.
    on_part: told after every chunk which fraction is done.
    """
    attended, streams, modulations = {}, {}, {}

    def stream(chunk: int, depth: int) -> Tensor:
        """The chunk's pixels after `depth` blocks."""
        span = spans[chunk]
        if depth == 0:
            return embed(span)
        block = blocks[depth - 1]
        return block.end(
            streams.pop(chunk) if kept.stream else stream(chunk, depth - 1),
            attended[depth - 1][:, :, span],
            modulations.pop(chunk) if kept.modulation else block.modulate(s[:, span])[2:],
        )

    def passed(chunk: int, depth: int) -> None:
        if on_part is not None:
            on_part((depth + (chunk + 1) / len(spans)) / (len(blocks) + 1))

    def advance(chunk: int, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """Into the block behind `depth` blocks: the chunk's q, k, v. A function, so that its locals are let go."""
        u, block, span = stream(chunk, depth), blocks[depth], spans[chunk]
        shift, scale, *rest = block.modulate(s[:, span])
        if kept.stream:
            streams[chunk] = u
        if kept.modulation:
            modulations[chunk] = [part.contiguous() for part in rest]
        heads = block.begin(u, shift, scale, tuple(table[span] for table in rope))
        passed(chunk, depth)
        return heads

    def end(chunk: int) -> Tensor:
        out = finish(stream(chunk, len(blocks)))
        passed(chunk, len(blocks))
        return out

    for depth in range(len(blocks)):
        heads = [advance(chunk, depth) for chunk in range(len(spans))]
        if kept.stream:
            attended.clear()
        attended[depth] = attention(*join_heads(heads))
    return torch.cat([end(chunk) for chunk in range(len(spans))], dim=1)
