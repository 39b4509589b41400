"""What the pixel path caches between two of its passes over the tokens, and into how many chunks it is cut.

How much a chunk needs depends on what runs it: see `fused.kind_of` for the names of devices here.
"""

from __future__ import annotations

from typing import NamedTuple

from .config import PiDConfig
from .fused import COMPILED, COMPILED_KERNELS, fit_registers

# Bytes that the cache may take where nobody planned for the memory there is. Enough for 2304 x 2304 pixels of the
# released sizes in bfloat16.
CACHE_BYTES = 3 << 29
# A chunk's values are the largest part of what a small image needs at once, so it is cut at least so often. The
# kernels need less, and a card wants large products: on an H100 a step of 1024 pixels takes 19.4 ms in two chunks and
# 23.8 ms in eight.
PIXEL_CHUNKS = {"kernels": 2}
SMALL_CHUNKS = 8
# What runs the pixel path where its kernels do not take its widths.
PLAIN = {"kernels": "cuda", COMPILED_KERNELS: COMPILED}


class PixelCache(NamedTuple):
    """Whether the pixel stream, and the modulation of the block under way, are cached between two passes."""

    stream: bool
    modulation: bool


# From the least work to the least memory.
PIXEL_CACHES = PixelCache(True, True), PixelCache(True, False), PixelCache(False, False)


def pixel_kind(config: PiDConfig, kind: str) -> str:
    """What `fused.kind_of` said, for the pixel path: its kernels do not take every width."""
    fit = fit_registers(config.pixel_hidden_size, config.pixel_mlp_size)
    return kind if fit else PLAIN.get(kind, kind)


def pixel_chunks(kind: str) -> int:
    """Into how many chunks the pixel path is cut at least; kind: what `fused.kind_of` calls the device."""
    return PIXEL_CHUNKS.get(kind, SMALL_CHUNKS)


def default_cache(config: PiDConfig, tokens: int, dtype_bytes: int, kind: str) -> PixelCache:
    """The largest that fits `CACHE_BYTES`; tokens of all images of the batch. kind: see `pixel_kind`."""
    stream, modulation = cache_bytes(config, dtype_bytes, kind)
    return PixelCache(tokens * stream <= CACHE_BYTES, tokens * (stream + modulation) <= CACHE_BYTES)


def cache_bytes(config: PiDConfig, dtype_bytes: int, kind: str) -> tuple[int, int]:
    """Bytes per token: of the pixel stream, and of what `ops.cached_modulation` keeps. kind: see `pixel_kind`."""
    values = config.patch_size**2 * config.pixel_hidden_size
    return 4 * values, (6 if kind == "kernels" else 4) * values * dtype_bytes
