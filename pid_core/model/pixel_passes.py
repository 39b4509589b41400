"""The pixel blocks over all tokens, chunk by chunk: what `PixelBlock.forward` does, in less memory.

All of a block is local to a patch but its attention. So a pass over the chunks ends one block and begins the next, up
to its attention. What a later pass needs again is cached, or made again where it would be too large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..progress import OnPart
from .attention import Attention
from .ops import cached_modulation
from .pixel_cache import PixelCache
from .pixels import PixelBlock
from .positions import Rotation, rotation_of


class PixelPasses:
    """One run of the blocks.

    s: [B, L, D] in the compute dtype. embed(span): the pixel stream of these tokens, [B, l, N, P] float32.
    finish(u): what becomes of it after the last block, [B, l, ...].
    on_part: told after every chunk which fraction is done.
    """

    def __init__(
        self,
        blocks: Sequence[PixelBlock],
        s: Tensor,
        embed: Callable[[slice], Tensor],
        finish: Callable[[Tensor], Tensor],
        rope: Rotation,
        attention: Attention,
        spans: list[slice],
        cache: PixelCache,
        on_part: OnPart | None = None,
    ):
        self._blocks, self._s, self._embed, self._finish = blocks, s, embed, finish
        self._rope, self._attention = rope, attention
        self._spans, self._cache, self._on_part = spans, cache, on_part
        self._attended: dict[int, Tensor] = {}  # by block
        self._streams: dict[int, Tensor] = {}  # by chunk, as the block under way found it
        self._modulations: dict[int, Tensor] = {}  # by chunk, of the block under way

    def run(self) -> Tensor:
        """What `finish` gives, for all tokens."""
        for depth, block in enumerate(self._blocks):
            joint = block.joint(self._s)
            for chunk, span in enumerate(self._spans):
                rope = rotation_of(self._rope, span)
                joint.put(span.start, partial(self._begin, depth, chunk), block.attn.q_norm, block.attn.k_norm, rope)
            if self._streams:
                self._attended.clear()
            self._attended[depth] = joint.attend(self._attention)
        return torch.cat([self._last(chunk) for chunk in range(len(self._spans))], dim=1)

    def _begin(self, depth: int, chunk: int) -> Tensor:
        """The chunk into the block at `depth`: its qkv. A function, so that its locals are let go."""
        u, block = self._stream(depth, chunk), self._blocks[depth]
        modulation = block.adaLN_modulation(self._s[:, self._spans[chunk]])
        qkv = block.begin(u, modulation)
        if self._cache.stream:
            self._streams[chunk] = u
        if self._cache.modulation:
            self._modulations[chunk] = cached_modulation(u, modulation, block.norm2, block.mlp)
        self._passed(depth, chunk)
        return qkv

    def _last(self, chunk: int) -> Tensor:
        depth = len(self._blocks)
        out = self._finish(self._stream(depth, chunk))
        self._passed(depth, chunk)
        return out

    def _stream(self, depth: int, chunk: int) -> Tensor:
        """The chunk's pixels as the block at `depth` finds them, from the cache or else from the start."""
        span, first = self._spans[chunk], 0
        if chunk in self._streams:
            u, first = self._streams.pop(chunk), depth - 1
        else:
            u = self._embed(span)
        for earlier in range(first, depth):
            block = self._blocks[earlier]
            modulation = self._modulations.pop(chunk, None)
            if modulation is None:
                modulation = block.adaLN_modulation(self._s[:, span])
            u = block.end(u, self._attended[earlier][:, span], modulation)
            del modulation  # or it would be there beside the next
        return u

    def _passed(self, depth: int, chunk: int) -> None:
        if self._on_part is not None:
            self._on_part((depth + (chunk + 1) / len(self._spans)) / (len(self._blocks) + 1))
