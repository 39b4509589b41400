"""How a network's calls run where no gradients are wanted: in chunks of tokens, compiled, watched.

The parts are the network's own, and what comes out is what `PiDNetwork.predict` gives. What is wide per token exists
for a chunk only, and both residual streams may be changed in place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..progress import OnPart
from .attention import Attention
from .blocks import PatchBlock
from .chunks import chunk_bytes, map_tokens, token_spans
from .compiled import Compiled
from .cost import patch_share
from .fused import kind_of
from .inputs import Inputs, LatentInputs
from .modulation import Level, Lines
from .ops import split_modulation
from .pixel_cache import PixelCache, default_cache, pixel_chunks, pixel_kind
from .pixel_passes import PixelPasses
from .positions import Rotation, rotation_of

if TYPE_CHECKING:
    from .network import PiDNetwork


@dataclass
class Driver:
    """Runs a network's calls.

    chunk_bytes bounds the widest layers' values and pixel_chunks is how many chunks the pixel path has at least (None:
    by device), pixel_cache what is cached between them (None: what `pixel_cache.CACHE_BYTES` allows).
    compiled is how calls are compiled (None: not at all).
    """

    chunk_bytes: int | None = None
    pixel_chunks: int | None = None
    pixel_cache: PixelCache | None = None
    compiled: Compiled | None = None

    def run(self, net: PiDNetwork, inputs: Inputs, on_part: OnPart | None = None, level: Level | None = None) -> Tensor:
        """`PiDNetwork.forward` of checked inputs. None of them is changed."""
        driven = partial(self._predict, net, inputs, on_part or _nobody, level)
        return driven() if self.compiled is None else self.compiled.run(driven, net, inputs)

    @contextmanager
    def caching(self, cache: PixelCache | None) -> Iterator[None]:
        """While this lasts `pixel_cache` is this."""
        before, self.pixel_cache = self.pixel_cache, cache
        try:
            yield
        finally:
            self.pixel_cache = before

    def uncompiled(self) -> AbstractContextManager:
        """While this lasts nothing is compiled: a graph would take minutes, for a call or two."""
        return nullcontext() if self.compiled is None else self.compiled.off()

    def _predict(self, net: PiDNetwork, inputs: Inputs, on_part: OnPart, level: Level | None) -> Tensor:
        config, x, lq = net.config, inputs.x, inputs.lq
        spans = self._spans(x, config.patch_size, config.patch_values)
        share = 0.0
        if on_part is not _nobody:
            height, width = x.shape[-2:]
            share = patch_share(config, height, width, inputs.caption.shape[1], x.device.type)
        te = net.embed_time(inputs.timestep)
        modulation = _modulations(net, te, inputs.timestep, level)
        y, s = net.embed_caption(inputs.caption), net.embed_patches(x)
        for i, block in enumerate(net.patch_blocks):
            if lq and net.injects(i):
                s = map_tokens(partial(net.inject, i), spans, s, *lq, reuse=True)
            ropes, last = (inputs.patch_rope, inputs.text_rope), i + 1 == config.patch_depth
            s, y = self._patch_block(block, spans, s, y, modulation(i), *ropes, inputs.attention, not last)
            on_part(share * (i + 1) / config.patch_depth)
        more = lq if lq and config.pit_injection else ()
        s = map_tokens(partial(_condition, net, te, lq), spans, s, *more)
        out = self._pixels(net, inputs, s, lambda done: on_part(share + (1 - share) * done))
        return net.to_image(out, x)

    def _patch_block(self, block: PatchBlock, spans: list[slice], *args) -> tuple[Tensor, Tensor]:
        return self._whole(block, *args) if len(spans) == 1 else _in_chunks(block, spans, *args)

    def _pixels(self, net: PiDNetwork, inputs: Inputs, s: Tensor, on_part: OnPart) -> Tensor:
        """The pixel blocks and what follows: [B, L, N, 3]."""
        config, x = net.config, inputs.x.float()
        kind = pixel_kind(config, kind_of(x.device))
        width = 6 * config.patch_size**2 * config.pixel_hidden_size
        spans = self._spans(x, config.patch_size, width, self.pixel_chunks or pixel_chunks(kind), kind)
        if len(spans) > 1:
            cache = self.pixel_cache or default_cache(config, s.shape[0] * s.shape[1], net.compute_dtype.itemsize, kind)
            embed = partial(net.embed_pixels, x, inputs.positions)
            return PixelPasses(
                net.pixel_blocks,
                s,
                embed,
                net.finish_pixels,
                rope=inputs.pixel_rope,
                attention=inputs.attention,
                spans=spans,
                cache=cache,
                on_part=on_part,
            ).run()
        u, parts = net.embed_pixels(x, inputs.positions), len(net.pixel_blocks) + 1
        for done, block in enumerate(net.pixel_blocks, start=1):
            u = self._whole(block, u, s, inputs.pixel_rope, inputs.attention)
            on_part(done / parts)
        u = net.finish_pixels(u)
        on_part(1.0)
        return u

    def _whole(self, block: Callable, *args):
        return block(*args) if self.compiled is None else self.compiled.block(block, *args)

    def _spans(self, x: Tensor, patch: int, width: int, parts: int = 1, kind: str | None = None) -> list[slice]:
        tokens = x.shape[-2] * x.shape[-1] // patch**2
        if self.compiled is not None and self.compiled.active:  # a graph would spell each chunk out
            return [slice(0, tokens)]
        return token_spans(tokens, x.shape[0], width, self.chunk_bytes or chunk_bytes(kind or kind_of(x.device)), parts)


def _in_chunks(
    block: PatchBlock,
    spans: list[slice],
    s: Tensor,
    y: Tensor,
    modulation: Lines,
    rope_x: Rotation,
    rope_y: Rotation | None,
    attention: Attention,
    with_y: bool,
) -> tuple[Tensor, Tensor]:
    """`PatchBlock.forward`, with the image's tokens in chunks wherever they are on their own."""
    attn_x, mlp_x = split_modulation(modulation[0])
    attn_y, mlp_y = split_modulation(modulation[1])
    attn, text, dtype = block.attn, y.shape[1], modulation[0].dtype
    joint = block.joint(modulation[0], text + s.shape[1])
    joint.put(0, partial(block.caption_qkv, y, attn_y, dtype), attn.q_norm_y, attn.k_norm_y, rope_y)
    for span in spans:
        make = partial(block.image_qkv, s[:, span], attn_x, dtype)
        joint.put(text + span.start, make, attn.q_norm_x, attn.k_norm_x, rotation_of(rope_x, span))
    out = joint.attend(attention, first=0 if with_y else text)
    end = partial(block.end_image, attn=attn_x, mlp=mlp_x)
    s = map_tokens(end, spans, s, out[:, text if with_y else 0 :], reuse=True)
    return (s, block.end_caption(y, out[:, :text], attn_y, mlp_y)) if with_y else (s, y)


def _condition(net: PiDNetwork, te: Tensor, lq: LatentInputs | None, s: Tensor, *its: Tensor) -> Tensor:
    """`PiDNetwork.condition_pixels` of some tokens; its: their LatentInputs, where the pixel blocks know the latent."""
    return net.condition_pixels(s, te, LatentInputs(*its) if its else lq)


def _modulations(net: PiDNetwork, te: Tensor, timestep: Tensor, level: Level | None) -> Callable[[int], Lines]:
    """What gives each patch block's modulation."""
    dtype = net.compute_dtype
    if level is None:
        c = F.silu(te).to(dtype)
        return lambda depth: net.patch_blocks[depth].modulation(c)

    @functools.cache
    def condition(value: float) -> Tensor:
        # also at the call's own level: what a caller takes for it may be another, and others take what is cached
        return F.silu(net.embed_time(torch.full_like(timestep, value))).to(dtype)

    place = len(te), dtype, te.device
    return lambda depth: level.run.lines(depth, net.patch_blocks[depth], level.timestep, place, condition)


def _nobody(done: float) -> None:
    """Listens to no progress."""
