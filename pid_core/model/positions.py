"""Position and time tables: image RoPE, text RoPE, pixel embedding, timestep features.

Each depends only on sizes, so each is made once per size and kept in a bounded cache.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]  # (cos, sin), each [L, head_dim / 2], float32
COMPLEX_DEVICES = ("cpu", "cuda")  # those known to multiply complex numbers


def _table(make):
    """Cache a table by its arguments. Inference mode is left, so that a table may also be used under autograd."""

    @functools.lru_cache(maxsize=8)
    def cached(*args, **kwargs):
        with torch.inference_mode(False), torch.no_grad():
            return make(*args, **kwargs)

    @functools.wraps(make)
    def table(*args, **kwargs):
        # a compiled graph makes the table itself; through the cache the compiler would warn
        return make(*args, **kwargs) if torch.compiler.is_compiling() else cached(*args, **kwargs)

    # type: ignore: functools.wraps says of what it returns that it has no attributes
    table.cache_info, table.cache_clear = cached.cache_info, cached.cache_clear  # type: ignore[attr-defined]
    return table


@_table
def image_rope(
    rows: int,
    cols: int,
    head_dim: int,
    *,
    reference: float | None,
    theta: float = 1e4,
    extent: float = 16.0,
    device: torch.device | str = "cpu",
) -> Rotation:
    """2-D RoPE over a patch grid, row-major, NTK-aware per axis (reference: `rope_mode="ntk_aware"`).

    The grid is always stretched over [0, extent] on both axes. `reference` is the grid side at which theta is unscaled
    (None: never scaled). Angles alternate column, row, column, row. Returns cos, sin [rows * cols, head_dim / 2].
    """
    exponent = (head_dim / 2) / (head_dim / 2 - 2) if head_dim > 4 else 0.0

    def angles(count: int) -> Tensor:
        base = theta if reference is None else theta * (count / reference) ** exponent
        k = torch.arange(0, head_dim, 4, dtype=torch.float32, device=device) / head_dim
        position = torch.linspace(0, extent, count, dtype=torch.float32, device=device)
        return torch.outer(position, 1.0 / (base**k))

    x, y = angles(cols), angles(rows)
    quarter = head_dim // 4
    both = torch.stack([x[None].expand(rows, cols, quarter), y[:, None].expand(rows, cols, quarter)], dim=-1)
    both = both.reshape(rows * cols, head_dim // 2)
    return both.cos(), both.sin()


@_table
def text_rope(length: int, head_dim: int, *, theta: float = 1e4, device: torch.device | str = "cpu") -> Rotation:
    """1-D RoPE for caption tokens 0..length-1. Returns cos, sin [length, head_dim / 2]."""
    k = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    angle = torch.outer(torch.arange(length, dtype=torch.float32, device=device), 1.0 / (theta**k))
    return angle.cos(), angle.sin()


def rotation_of(rotation: Rotation, tokens: slice) -> Rotation:
    """Of some tokens only."""
    cos, sin = rotation
    return cos[tokens], sin[tokens]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Apply RoPE to [B, L, heads, head_dim]; the pair (2i, 2i+1) turns by angle i. Computed and returned in float32."""
    cos, sin = (table[:, None] for table in rotation)
    pairs = x.float().unflatten(-1, (-1, 2))
    if x.device.type in COMPLEX_DEVICES and not torch.compiler.is_compiling():
        # one pass over memory where the formulas below take several
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin)).flatten(-2)
    if torch.compiler.is_compiling():
        # the same sums; a stack would be a pass of its own
        sin = torch.stack((-sin, sin), dim=-1)
        return (pairs * cos[..., None] + pairs.flip(-1) * sin).flatten(-2)
    a, b = pairs.unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


@_table
def sine_cosine(start: int, count: int, channels: int, *, device: torch.device | str = "cpu") -> Tensor:
    """1-D embedding of the coordinates start..start+count-1: [count, channels] float32, sines then cosines.

    The pixel embedding is this, of the column, in the first half of the channels and of the row in the second.
    Computed in float64 as in the reference. Absolute pixel coordinates, never scaled by the image size.
    """
    # on the CPU: not every device has float64
    k = torch.arange(channels // 2, dtype=torch.float64, device="cpu")
    omega = 1.0 / 10000 ** (k / (channels // 2))
    angle = torch.outer(torch.arange(start, start + count, dtype=torch.float64, device="cpu"), omega)
    return torch.cat([angle.sin(), angle.cos()], dim=1).float().to(device)


def patch_positions(down: Tensor, across: Tensor, patch: int, tokens: slice) -> Tensor:
    """The pixel embedding of some tokens, pixel by pixel: [len(tokens), patch ** 2, channels].

    down [H, channels / 2] and across [W, channels / 2]: `sine_cosine` of the rows and columns. `tokens` counts patches
    row by row. The column's half comes first.
    """
    token = torch.arange(tokens.start, tokens.stop, device=down.device)
    rows, columns = down.unflatten(0, (-1, patch)), across.unflatten(0, (-1, patch))
    row, column = rows[token // len(columns)], columns[token % len(columns)]
    shape = (-1, patch, patch, -1)
    return torch.cat([column[:, None].expand(shape), row[:, :, None].expand(shape)], dim=-1).flatten(1, 2)


def timestep_features(timestep: Tensor, channels: int) -> Tensor:
    """[B] network time (1000 * t) -> [B, channels] float32 cos, sin features; max_period is 10, not 10000."""
    half = channels // 2
    k = torch.arange(half, dtype=torch.float32, device=timestep.device)
    angle = timestep.float()[:, None] * torch.exp(-math.log(10.0) * k / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
