"""The LQ projector's trunk over a large canvas, a strip of rows at a time: what `LQProjector.forward` does, in less
memory, and equal to it but for the order in which a norm's values are added up.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ..progress import OnPart
from .chunks import token_spans
from .lq import LQProjector, ResBlock
from .ops import GroupScale, is_as_built

# A larger canvas goes through the trunk in strips of rows, each of at most so many bytes of float32 values.
STRIP_BYTES = 96 << 20


def strips(rows: int, cols: int, width: int, batch: int) -> list[slice]:
    """The rows of a patch grid in strips; width: channels."""
    return token_spans(rows, batch, cols * width, STRIP_BYTES)


def project(projector: LQProjector, lq_latent: Tensor, rows: int, cols: int, on_part: OnPart | None = None) -> Tensor:
    """`projector` of a latent, as `LQProjector.forward`, in strips where the canvas is large.

    on_part: told after every block which fraction is done.
    """
    latent = projector.align(lq_latent, rows, cols)
    spans = _spans(projector, latent)
    x = projector.enter(latent) if len(spans) == 1 else _enter(projector, latent, spans)
    blocks = projector.blocks
    for done, block in enumerate(blocks, start=1):
        if len(spans) == 1:
            x = block(x, latent.dtype)
        else:
            _block(block, x, latent.dtype, spans)
        if on_part is not None:
            on_part(done / len(blocks))
    return projector.as_tokens(x, latent.dtype) if len(spans) == 1 else _as_tokens(x, latent.dtype, spans)


def with_halo(rows: slice, halo: int, count: int) -> tuple[slice, slice]:
    """The rows with `halo` more on either side, as far as there are any of `count`; and where the rows are in that."""
    start, stop = max(rows.start - halo, 0), min(rows.stop + halo, count)
    return slice(start, stop), slice(rows.start - start, rows.stop - start)


def _spans(projector: LQProjector, latent: Tensor) -> list[slice]:
    batch, _, rows, cols = latent.shape
    # a changed norm sees all of its input
    norms = [layer for layer in projector.latent_proj.modules() if isinstance(layer, nn.GroupNorm)]
    return strips(rows, cols, projector.width, batch) if is_as_built(*norms) else [slice(0, rows)]


def _enter(projector: LQProjector, latent: Tensor, spans: list[slice]) -> Tensor:
    batch, _, rows, cols = latent.shape
    x = latent.new_empty(batch, projector.width, rows, cols, dtype=torch.float32)
    for span in spans:
        outer, inner = with_halo(span, 2, rows)
        x[:, :, span] = projector.enter(latent[:, :, outer])[:, :, inner]
    return x


def _block(block: ResBlock, x: Tensor, dtype: torch.dtype, spans: list[slice]) -> None:
    """The block on x itself, with what a convolution and a norm need beside it for one strip at a time."""
    norm1, conv1, norm2, conv2 = block.layers
    h = torch.empty_like(x, dtype=dtype)
    for source, norm, conv in ((x, norm1, conv1), (h, norm2, conv2)):
        scale = GroupScale(norm, source, spans)
        for rows in spans:
            outer, inner = with_halo(rows, 1, x.shape[2])
            part = conv(scale.silu(source[:, :, outer], dtype))[:, :, inner]
            if source is x:
                h[:, :, rows] = part
            else:
                x[:, :, rows] += part
            del part  # or it would be there beside the next


def _as_tokens(x: Tensor, dtype: torch.dtype, spans: list[slice]) -> Tensor:
    batch, channels, rows, cols = x.shape
    out = x.new_empty(batch, rows * cols, channels, dtype=dtype)
    for span in spans:
        out[:, span.start * cols : span.stop * cols] = rearrange(x[:, :, span], "b c h w -> b (h w) c")
    return out
