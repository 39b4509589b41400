"""The token axis in chunks: what is wide per token exists for a part of the tokens only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Largest chunk, counted as the widest layer's values in float32. A CPU wants it in its cache. Elsewhere few large
# launches win, and weights that are streamed or dequantised at every call are so fewer times; the more where the fused
# kernels make no float32 copies.
CHUNK_BYTES = {"cpu": 32 << 20, "kernels": 512 << 20}
LARGEST_CHUNK = 256 << 20
# Cutting smaller than this saves nothing that matters.
SMALLEST_CHUNK = 4 << 20
# Values of a canvas that are worked on at once where that makes copies of them.
CANVAS_VALUES = 1 << 22


def chunk_bytes(kind: str) -> int:
    """The bound for what `fused.kind_of` calls a device."""
    return CHUNK_BYTES.get(kind, LARGEST_CHUNK)


def token_spans(tokens: int, batch: int, width: int, limit: int, parts: int = 1) -> list[slice]:
    """Cut `tokens` into nearly equal spans, each with at most `limit` bytes of `width` float32 values per token.

    parts: how many spans there should be at least, unless they would be smaller than `SMALLEST_CHUNK`.
    """
    size = span_tokens(tokens, batch, width, limit, parts)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def span_tokens(tokens: int, batch: int, width: int, limit: int, parts: int = 1) -> int:
    """How many tokens the largest span of `token_spans` holds."""
    bytes_each = 4 * batch * width
    limit = min(limit, max(tokens * bytes_each // parts, SMALLEST_CHUNK))
    count = -(-tokens // max(1, limit // bytes_each))
    return -(-tokens // count)


def map_tokens(function: Callable[..., Tensor], spans: list[slice], *streams: Tensor, reuse: bool = False) -> Tensor:
    """Apply `function` to chunks of streams [B, L, ...] and put the results together.

    reuse: write the results into the first stream, which is then used up. With one span nothing is copied, and
    gradients flow.
    """
    if len(spans) == 1:
        return function(*streams)
    out = streams[0]
    for i, span in enumerate(spans):
        chunks = [stream[:, span] for stream in streams]
        part = function(*chunks)
        if reuse and part is chunks[0]:  # written in place
            continue
        if i == 0 and not reuse:
            out = part.new_empty(part.shape[0], spans[-1].stop, *part.shape[2:])
        out[:, span] = part
    return out


def by_rows(function: Callable[..., Tensor], *canvases: Tensor) -> Tensor:
    """`function` of canvases [..., H, W] of one shape, some rows of them at a time: a canvas of that shape, float32.

    For what is worked out pixel by pixel in several copies, as many as canvases would else be.
    """
    shape = canvases[0].shape
    rows = max(1, CANVAS_VALUES * shape[-2] // max(1, canvases[0].numel())) if len(shape) > 1 else 0
    if len(shape) < 2 or rows >= shape[-2] or torch.is_grad_enabled():
        return function(*canvases).float()
    out = torch.empty(shape, dtype=torch.float32, device=canvases[0].device)
    for top in range(0, shape[-2], rows):
        out[..., top : top + rows, :] = function(*(canvas[..., top : top + rows, :] for canvas in canvases))
    return out
