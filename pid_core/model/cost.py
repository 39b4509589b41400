"""What a forward costs, worked out from the configuration alone: floating point operations and peak memory."""

from __future__ import annotations

from typing import NamedTuple

from .chunks import chunk_bytes, span_tokens
from .config import PiDConfig
from .fused import COMPILED, COMPILED_KERNELS
from .pixel_cache import PIXEL_CACHES, PixelCache, cache_bytes, default_cache, pixel_chunks, pixel_kind
from .strips import strips

# What one FLOP of attention costs in FLOPs of a linear layer. CPU: 517 GFLOP/s in a bfloat16 linear layer against 181
# in SDPA, measured on two cores. CUDA: 684 TFLOP/s in a step's linear layers against 425 in its attention, measured on
# an H100; consumer cards' published rates give 1.1. Other devices are not measured yet and count both alike.
ATTENTION_PRICE = {"cpu": 517 / 181, "cuda": 684 / 425}


class Work(NamedTuple):
    """FLOP of one forward (a multiply-add is two): in linear layers, and in attention's two products."""

    linear: int
    attention: int


def forward_work(
    config: PiDConfig, height: int, width: int, caption_tokens: int | None = None, cache: PixelCache = PIXEL_CACHES[0]
) -> Work:
    """Work of one network call on one image of height x width pixels.

    caption_tokens: default and maximum `config.caption_length`. cache: of the pixel path; what is not in it is made
    again, which counts. Counts every linear layer and both attention products,
    as PyTorch's FLOP counter does; leaves out elementwise work and the LQ trunk's convolutions, which run
    once per image and not once per window and step.
    """
    return Work(*map(sum, zip(*_patch_and_pixel_work(config, height, width, caption_tokens, cache), strict=True)))


def priced(work: Work, device_type: str) -> float:
    """Work as one number that time is about proportional to on a device: FLOP of linear layers."""
    return work.linear + ATTENTION_PRICE.get(device_type, 1.0) * work.attention


def patch_share(config: PiDConfig, height: int, width: int, caption_tokens: int | None, device_type: str) -> float:
    """Which fraction of a network call is behind it when the pixel blocks begin."""
    patch, pixel = (priced(w, device_type) for w in _patch_and_pixel_work(config, height, width, caption_tokens))
    return patch / (patch + pixel)


def trunk_work(config: PiDConfig, height: int, width: int) -> int:
    """FLOP of the LQ trunk's convolutions for one image of height x width pixels; 0 without a latent branch."""
    if not config.has_latent:
        return 0
    layers = config.lq_in_channels + (1 + 2 * config.lq_res_blocks) * config.lq_width
    return 2 * 9 * _tokens(config, height, width) * config.lq_width * layers


def _patch_and_pixel_work(
    config: PiDConfig, height: int, width: int, caption_tokens: int | None, cache: PixelCache = PIXEL_CACHES[0]
) -> tuple[Work, Work]:
    c = config
    pixels = c.patch_size**2
    tokens = _tokens(c, height, width)
    text = min(c.caption_length if caption_tokens is None else caption_tokens, c.caption_length)
    width_, inner, attn = c.hidden_size, c.mlp_size, c.pixel_attn_size
    patch_width = pixels * c.pixel_hidden_size
    gate_rows = width_ if c.gate == "channel" else 1
    attends = int(c.attends)  # else there is no q, k and v
    block = (3 * attends + 1) * width_**2 + 3 * width_ * inner  # qkv, output projection, SwiGLU
    inject = c.lq_width * width_ + 2 * width_ * gate_rows
    modulation, begin = 6 * width_ * patch_width, attends * (patch_width * attn + 3 * attn**2)
    end = attn**2 + attn * patch_width + 2 * pixels * c.pixel_hidden_size * c.pixel_mlp_size
    # how often a block's end, behind its attention, is worked out, for all blocks; where the stream is not cached, once
    # in every pass that comes after it. Without attention there is one pass.
    once = cache.stream or not attends
    ends = c.pixel_depth if once else c.pixel_depth * (c.pixel_depth + 1) // 2
    embeds = 1 if once else c.pixel_depth + 1
    modulations = c.pixel_depth + (0 if cache.modulation or not attends else ends)
    per_token = c.in_channels * pixels * width_ + c.patch_depth * block + (c.lq_outputs + c.pit_injection) * inject
    per_token_of_pixels = (
        (embeds + 1) * c.in_channels * patch_width + c.pixel_depth * begin + modulations * modulation + ends * end
    )
    # The last block only needs the caption's keys and values, which come with its queries.
    per_text_token = c.caption_width * width_ + (c.patch_depth - 1) * block + 3 * attends * width_**2
    per_image = c.time_features * width_ + width_**2 + c.patch_depth * 12 * width_**2
    joint = (c.patch_depth * (tokens + text) - text) * (tokens + text)  # the last block asks for image tokens only
    return (
        Work(2 * (tokens * per_token + text * per_text_token + per_image), 4 * attends * joint * width_),
        Work(2 * tokens * per_token_of_pixels, 4 * attends * tokens**2 * attn * c.pixel_depth),
    )


def forward_flops(
    config: PiDConfig, height: int, width: int, caption_tokens: int | None = None, cache: PixelCache = PIXEL_CACHES[0]
) -> int:
    """FLOP of one network call on one image of height x width pixels; see `forward_work`."""
    return sum(forward_work(config, height, width, caption_tokens, cache))


def peak_bytes(
    config: PiDConfig,
    height: int,
    width: int,
    batch: int = 1,
    dtype_bytes: int = 2,
    kind: str = "cuda",
    cache: PixelCache | None = None,
) -> int:
    """Memory above the weights at the fullest moment of one network call on `batch` images of height x width pixels.

    dtype_bytes: size of the compute dtype; residual streams, norms and RoPE are float32. kind: what `fused.kind_of`
    or `Compiled.kind_of` calls the device, which decides how large chunks are. cache: of the pixel path (None: what
    `pixel_cache.CACHE_BYTES` allows; a compiled call caches all). It is the larger of two moments, each the sum of the
    tensors alive then (b compute bytes, D hidden size, W `PiDConfig.patch_values`, A pixel attention width, n = pixels
    per token * pixel width):
    joint attention: residual 4D, q, k, v and the result 4bD, or in a chunk of the MLP before it ends 8D + bD + bW;
    pixel attention: what modulates it bD, q, k, v and the result 4bA, the pixel stream 4n and its modulation 4bn (6bn
    for the kernels) where they are cached, and a chunk with its float32 copies. With it, always:
    the image, LQ features and RoPE tables. A compiled call works on all tokens in one chunk. The canvas of a windowed
    decode (noise, fused x0, the trunk's features for the whole image) is not in it. The fused kernels make no float32
    copies.
    """
    c, b = config, dtype_bytes
    pixels = c.patch_size**2
    image_tokens = _tokens(c, height, width)
    tokens, text = batch * image_tokens, batch * c.caption_length
    d, n = c.hidden_size, pixels * c.pixel_hidden_size
    of_pixels = pixel_kind(c, kind)

    compiled = kind in (COMPILED, COMPILED_KERNELS)
    chunk = tokens if compiled else batch * span_tokens(image_tokens, batch, c.patch_values, chunk_bytes(kind))
    residual = (8 if kind == COMPILED else 4) * d * (tokens + text)
    attended = b * d * (tokens + text) if c.attends else 0
    widened = 0 if compiled or kind == "kernels" else 12 * d
    mlp = attended + chunk * (widened + b * (2 * d + c.patch_values))
    patch_moment = residual + max(4 * attended, mlp)

    if compiled:
        pixel_moment = tokens * (b * d + n * _bytes_in_graph(c, b, of_pixels))
    else:
        pixel_moment = _pixel_moment(c, image_tokens, batch, b, of_pixels, cache)
    always = tokens * (4 * c.in_channels * pixels + b * c.lq_width)
    tables = 4 * image_tokens * (c.head_dim + c.pixel_head_dim)
    return max(patch_moment, pixel_moment) + always + tables


def _pixel_moment(c: PiDConfig, image_tokens: int, batch: int, b: int, kind: str, cache: PixelCache | None) -> int:
    """Of the pixel path in chunks."""
    tokens, n = batch * image_tokens, c.patch_size**2 * c.pixel_hidden_size
    # without attention nothing is come back to
    cache = (cache or default_cache(c, tokens, b, kind)) if c.attends else PixelCache(stream=False, modulation=False)
    sizes = cache_bytes(c, b, kind)
    cached = sum(size for is_cached, size in zip(cache, sizes, strict=True) if is_cached)
    results = 1 if cache.stream else c.pixel_depth  # of attention, from which the stream is made again
    # without attention the only pass gathers what it gives
    attended = b * c.pixel_attn_size * (3 + results) if c.attends else 4 * c.in_channels * c.patch_size**2
    # the MLP's line being modulated, or the MLP with its hidden values; and what was not cached
    copies = 2 * b if kind == "kernels" else max(2 * b + 32, 10 * b + 8)
    in_chunk = copies + (0 if cache.modulation else 6 * b) + (0 if cache.stream or not c.attends else 4)
    chunk = batch * span_tokens(image_tokens, batch, 6 * n, chunk_bytes(kind), pixel_chunks(kind))
    return tokens * (b * c.hidden_size + cached + attended) + chunk * n * in_chunk


def _bytes_in_graph(c: PiDConfig, b: int, kind: str) -> int:
    """Bytes per pixel channel where a compiled pixel block is fullest: all tokens are in one chunk.

    The stream and the modulation; the kernels change the stream in place, beside attention's widened result. Else a
    new stream stands beside the old one, and the MLP's input and hidden values.
    """
    if kind == COMPILED_KERNELS:
        return 4 + 6 * b + 2 * b
    return 8 + 6 * b + b + b * c.pixel_mlp_size // c.pixel_hidden_size


def trunk_bytes(config: PiDConfig, height: int, width: int, batch: int = 1, dtype_bytes: int = 2) -> tuple[int, int]:
    """(peak, result): memory the LQ trunk needs for `batch` latents of a canvas of height x width pixels.

    The peak is inside a residual block: its input, norm and activation, all float32, and the first convolution's
    output; in float32 with replicate padding also the second convolution's padded input and output. In strips
    (`strips.strips`) only the input and the first convolution's output are there whole.
    """
    c, b = config, dtype_bytes
    values = batch * _tokens(c, height, width) * c.lq_width
    padded = b == 4 and c.lq_padding == "replicate"
    rows, cols = -(-height // c.patch_size), -(-width // c.patch_size)
    spans = strips(rows, cols, c.lq_width, batch)
    if len(spans) == 1:
        return (20 if padded else 12 + b) * values, b * values
    strip = batch * cols * (spans[0].stop + 2) * c.lq_width
    return (4 + b) * values + (12 if padded else 8) * strip, b * values


def _tokens(config: PiDConfig, height: int, width: int) -> int:
    """Patches of an image; one that ends inside a patch is padded to it."""
    return -(-height // config.patch_size) * -(-width // config.patch_size)
