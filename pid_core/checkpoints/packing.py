"""Weights of 8 bits in ComfyUI's formats: a layer's weight packed, and the values it then stands for.

fp8: float8_e4m3fn with one scale. int8: one scale for every row, the columns rotated in groups where GROUP divides them
(that spreads a few large values over their group). mxfp8: float8_e4m3fn with a power of two for every 32 columns.
Products in 8 bits round a layer's inputs too: `rounded_input` does it as ComfyUI does.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .quantised import CONF, conf_tensor

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
BLOCK = 32  # columns that share a power of two in mxfp8
GROUP = 256  # columns that are rotated together in int8: the size that ComfyUI has kernels for


class Format(NamedTuple):
    """How ComfyUI calls it, and what the sides of a weight must be multiples of: (rows, columns)."""

    name: str
    multiples: tuple[int, int]


# products of 8 bits want multiples of 16 on NVIDIA cards
PACKED = {
    "fp8": Format("float8_e4m3fn", (16, 16)),
    "int8": Format("int8_tensorwise", (16, 16)),
    "mxfp8": Format("mxfp8", (BLOCK, BLOCK)),
}


def fits(to: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight of that shape can be packed. to: a key of PACKED."""
    return len(shape) == 2 and not any(side % part for side, part in zip(shape, PACKED[to].multiples, strict=True))


def pack(to: str, weight: Tensor) -> dict[str, Tensor]:
    """A Linear's weight [rows, columns], any floating-point dtype, as the layer's tensors by their last names."""
    weight = weight.float()
    if to == "fp8":
        scale = weight.abs().amax() / LARGEST
        inverse = torch.where(scale == 0, 0, 1 / scale)
        stored = (weight * inverse).clamp(-LARGEST, LARGEST).to(FP8)
        return {"weight": stored, "weight_scale": scale, CONF: conf_tensor({"format": PACKED[to].name})}
    if to == "mxfp8":
        stored, exponents = _by_blocks(weight)
        return {"weight": stored, "weight_scale": _in_tiles(exponents), CONF: conf_tensor({"format": PACKED[to].name})}
    conf: dict[str, str | bool | int] = {"format": PACKED[to].name}
    if _is_rotated(weight.shape[1]):
        conf |= {"convrot": True, "convrot_groupsize": GROUP}
    stored, scale = _by_rows(_rotated(weight))
    return {"weight": stored, "weight_scale": scale, CONF: conf_tensor(conf)}


def unpack(to: str, tensors: dict[str, Tensor]) -> Tensor:
    """The values that the tensors of `pack` stand for, float32."""
    weight, scale = tensors["weight"].float(), tensors["weight_scale"]
    if to == "mxfp8":
        exponents = _out_of_tiles(scale, weight.shape[0], weight.shape[1] // BLOCK)
        return (weight.unflatten(1, (-1, BLOCK)) * _power(exponents)[..., None]).flatten(1)
    return _rotated(weight * scale) if to == "int8" else weight * scale


def rounded_input(to: str, x: Tensor) -> Tensor:
    """x [..., columns] as a layer sees it whose products are in 8 bits, in x's dtype."""
    values = x.float().flatten(0, -2)
    if to == "fp8":
        out = values.clamp(-LARGEST, LARGEST).to(FP8).float()
    elif to == "mxfp8":
        stored, exponents = _by_blocks(values)
        out = (stored.float().unflatten(1, (-1, BLOCK)) * _power(exponents)[..., None]).flatten(1)
    else:
        stored, scale = _by_rows(_rotated(values))
        out = _rotated(stored * scale)
    return out.view(x.shape).to(x.dtype)


def _is_rotated(columns: int) -> bool:
    return columns % GROUP == 0


def _rotated(values: Tensor) -> Tensor:
    """Every GROUP columns times one orthogonal, symmetric matrix: twice is the same as not at all."""
    if not _is_rotated(values.shape[-1]):
        return values
    return (values.unflatten(-1, (-1, GROUP)) @ _rotation(values.device)).flatten(-2)


@functools.lru_cache(maxsize=4)
def _rotation(device: torch.device) -> Tensor:
    four = torch.ones(4, 4) - 2 * torch.eye(4).flip(0)
    matrix = torch.ones(1, 1)
    while len(matrix) < GROUP:
        matrix = torch.kron(matrix, four)
    return (matrix / GROUP**0.5).to(device)


def _by_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    scale = (values.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30)
    return (values / scale).round().clamp(-128, 127).to(torch.int8), scale


def _by_blocks(values: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, columns] -> float8 of that shape, and the biased exponents [rows, columns / BLOCK], uint8."""
    blocks = values.unflatten(1, (-1, BLOCK))
    most = blocks.abs().amax(-1)
    exponents = torch.log2((most / LARGEST).clamp(min=2.0**-127)).ceil().int().add(127).clamp(0, 254)
    exponents = torch.where(most == 0, 0, exponents).to(torch.uint8)
    stored = (blocks / _power(exponents)[..., None]).clamp(-LARGEST, LARGEST)
    return stored.flatten(1).to(FP8), exponents


def _power(exponents: Tensor) -> Tensor:
    return torch.exp2(exponents.float() - 127)


def _in_tiles(exponents: Tensor) -> Tensor:
    """As the products read them: tiles of 128 rows and 4 blocks, of which each 32 rows lie side by side."""
    rows, blocks = exponents.shape
    tall, wide = 128 * math.ceil(rows / 128), 4 * math.ceil(blocks / 4)
    tiles = F.pad(exponents, (0, wide - blocks, 0, tall - rows)).view(tall // 128, 4, 32, wide // 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(tall, wide)


def _out_of_tiles(stored: Tensor, rows: int, blocks: int) -> Tensor:
    tall, wide = 128 * math.ceil(rows / 128), 4 * math.ceil(blocks / 4)
    tiles = stored.view(torch.uint8).view(tall // 128, wide // 4, 32, 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(tall, wide)[:rows, :blocks]
