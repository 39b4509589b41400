"""What a forward costs, worked out from the configuration alone: floating point operations and peak memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .config import PiDConfig

if TYPE_CHECKING:
    from .windows import WindowPlan

# What one FLOP of attention costs in FLOPs of a linear layer. CPU: 517 GFLOP/s in a bfloat16 linear layer against 181
# in SDPA, measured on two cores. Other devices are not measured yet and count both alike.
ATTENTION_PRICE = {"cpu": 517 / 181}


class Work(NamedTuple):
    """FLOP of one forward (a multiply-add is two): in linear layers, and in attention's two products."""

    linear: int
    attention: int


def forward_work(config: PiDConfig, height: int, width: int, caption_tokens: int | None = None) -> Work:
    """Work of one network call on one image of height x width pixels.

    caption_tokens: default and maximum `config.caption_length`. Counts every linear layer and both attention products,
    as PyTorch's FLOP counter does; leaves out elementwise work and the LQ trunk's convolutions, which run
    once per image and not once per window and step.
    """
    c = config
    pixels = c.patch_size**2
    tokens = height * width // pixels
    text = min(c.caption_length if caption_tokens is None else caption_tokens, c.caption_length)
    width_, inner, attn = c.hidden_size, c.mlp_size, c.pixel_attn_size
    patch_width = pixels * c.pixel_hidden_size
    gate_rows = width_ if c.gate == "channel" else 1
    block = 4 * width_**2 + 3 * width_ * inner  # qkv, output projection, SwiGLU
    inject = c.lq_width * width_ + 2 * width_ * gate_rows
    pixel_block = (
        6 * width_ * patch_width
        + 2 * patch_width * attn
        + 4 * attn**2
        + 2 * pixels * c.pixel_hidden_size * c.pixel_mlp_size
    )
    per_token = (
        c.in_channels * pixels * width_
        + c.patch_depth * block
        + (c.lq_outputs + c.pit_injection) * inject
        + 2 * c.in_channels * patch_width
        + c.pixel_depth * pixel_block
    )
    # The last block only needs the caption's keys and values, which come with its queries.
    per_text_token = c.caption_width * width_ + (c.patch_depth - 1) * block + 3 * width_**2
    per_image = c.time_features * width_ + width_**2 + c.patch_depth * 12 * width_**2
    attention = (tokens + text) ** 2 * width_ * c.patch_depth + tokens**2 * attn * c.pixel_depth
    return Work(2 * (tokens * per_token + text * per_text_token + per_image), 4 * attention)


def forward_flops(config: PiDConfig, height: int, width: int, caption_tokens: int | None = None) -> int:
    """FLOP of one network call on one image of height x width pixels; see `forward_work`."""
    return sum(forward_work(config, height, width, caption_tokens))


def plan_flops(plan: WindowPlan, config: PiDConfig, caption_tokens: int | None = None) -> int:
    """FLOP of one step of one image by this plan."""
    return plan.count * forward_flops(config, *plan.size, caption_tokens)


def peak_bytes(config: PiDConfig, height: int, width: int, batch: int = 1, dtype_bytes: int = 2) -> int:
    """Memory above the weights at the fullest moment of one network call on `batch` images of height x width pixels.

    dtype_bytes: size of the compute dtype; residual streams, norms and RoPE are float32. It is the largest of four
    moments, each the sum of the tensors alive then (b compute bytes, D hidden size, M MLP size, A pixel attention
    width, n = pixels per token * pixel width, F pixel MLP values per token):
    joint attention: residual 4D, its input bD, qkv 3bD, q and k in float32 8D, joined q, k, v and the output 4bD;
    patch MLP: residual before and after 8D, attention's and MLP's input 2bD, gate, value and their product 3bM;
    pixel modulation: the six vectors 6bn, stream before and after 8n, attention's output bn, float32 copies 16n;
    pixel MLP: 6bn, 8n, attention's output and MLP's input 2bn, hidden values before and after GELU 2bF.
    With it, always: the image, its patches and the result, LQ features and RoPE tables. The canvas of a windowed decode
    (noise, fused x0, the trunk's features for the whole image) is not in it.
    """
    c, b = config, dtype_bytes
    pixels = c.patch_size**2
    tokens = height * width // pixels
    d, m, n, f = c.hidden_size, c.mlp_size, pixels * c.pixel_hidden_size, pixels * c.pixel_mlp_size
    patch_moment = max((12 + 8 * b) * d, (8 + 2 * b) * d + 3 * b * m)
    pixel_moment = max((24 + 7 * b) * n, (8 + 8 * b) * n + 2 * b * f)
    # The patch stream is held while pixels are worked on: in float32, and in the compute dtype where that differs.
    pixel_moment += (4 + b % 4) * d
    held = 3 * 4 * c.in_channels * pixels + b * c.lq_width
    tables = 4 * tokens * (c.head_dim + c.pixel_head_dim)
    moment = max((tokens + c.caption_length) * patch_moment, tokens * pixel_moment)
    return batch * (moment + tokens * held) + tables


def trunk_bytes(config: PiDConfig, height: int, width: int, batch: int = 1, dtype_bytes: int = 2) -> tuple[int, int]:
    """(peak, result): memory the LQ trunk needs for `batch` latents of a canvas of height x width pixels.

    The peak is inside a residual block: its input, the first convolution's output, its norm and activation, all
    float32; in float32 with replicate padding also the second convolution's padded input and output.
    """
    values = batch * (height // config.patch_size) * (width // config.patch_size) * config.lq_width
    padded = dtype_bytes == 4 and config.lq_padding == "replicate"
    return (20 if padded else 16) * values, dtype_bytes * values
