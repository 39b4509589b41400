"""A full-size checkpoint with random weights: to see what loading and a small decode cost, without a download.

    python -m benchmarks.synthetic OUT.safetensors --version v1.5 --family flux
    python -m benchmarks.synthetic OUT.pth --pth

Names, shapes, prefix and dtype are those of NVIDIA's files, 2.7 to 2.8 GB. The pictures it decodes are noise.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pid_bridges.core_network import split_modulation
from pid_core import LATENT_FAMILIES, PiDConfig, PiDNetwork
from pid_core.checkpoints.reading import CAPTION_KEY
from pid_core.model.config import RELEASED

FAMILIES = {"v1": ("flux", "flux2", "sd3", "sdxl", "qwenimage"), "v1.5": ("flux", "flux2", "qwenimage")}
PREFIX = {"nvidia": "net.", "comfyui": "model.diffusion_model."}


def full_size_config(version: str = "v1", family: str = "flux") -> PiDConfig:
    """The released network's sizes. Raises ValueError for a pair that was never released."""
    if family not in FAMILIES[version]:
        raise ValueError(f"there is no {version} for {family}; {version} has {', '.join(FAMILIES[version])}")
    row = LATENT_FAMILIES[family]
    unpack = 2 if (version, family) == ("v1.5", "flux2") else 1
    return replace(RELEASED[version], latent_channels=row.channels, latent_down=row.down, latent_unpack=unpack)


def file_shapes(config: PiDConfig, layout: str = "nvidia", caption: int = 0) -> dict[str, tuple[int, ...]]:
    """Every tensor's name in the file and its shape. layout: "nvidia" or "comfyui" (split modulation).

    caption: tokens of a caption stored beside the weights, so that a graph needs no text encoder; 0: none.
    """
    tensors = network_tensors(config, caption)
    return {n: tuple(v.shape) for name, like in tensors for n, v in in_file(name, like, config, layout)}


def file_tensors(
    config: PiDConfig, seed: int = 0, layout: str = "nvidia", caption: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """The tensors in the same order, made one at a time: bfloat16, the same values in either layout."""
    for index, (name, like) in enumerate(network_tensors(config, caption)):
        generator = torch.Generator().manual_seed(seed + index)
        value = scaled(name, torch.randn(like.shape, generator=generator)).bfloat16()
        yield from in_file(name, value, config, layout)


def network_tensors(config: PiDConfig, caption: int) -> Iterator[tuple[str, Tensor]]:
    yield from PiDNetwork(config, device="meta").state_dict().items()
    if caption:
        yield CAPTION_KEY, torch.empty(caption, config.caption_width, device="meta")


def scaled(name: str, r: Tensor) -> Tensor:
    """Standard normal -> a weight that keeps every layer's output near its input's size."""
    if name == CAPTION_KEY:
        return r
    if name.endswith("log_alpha"):
        return 1.6 + 0.2 * r  # ln 5, the value training starts from
    if name.endswith("y_pos_embedding"):
        return 0.5 * r
    if r.ndim > 1:
        return r.div_(r[0].numel() ** 0.5)
    return 1 + 0.15 * r if name.endswith("weight") else 0.1 * r


def in_file(name: str, value: Tensor, config: PiDConfig, layout: str) -> list[tuple[str, Tensor]]:
    if name == CAPTION_KEY:
        return [(name, value)]
    if layout == "nvidia":
        return [(PREFIX[layout] + name, value)]
    parts = split_modulation(name, value, config.pixel_hidden_size)
    return [(PREFIX[layout] + part, half) for part, half in parts]


def write_safetensors(path: Path, config: PiDConfig, seed: int = 0, layout: str = "nvidia", caption: int = 0) -> None:
    """Write the file tensor by tensor; memory holds the largest one only."""
    header, offset = {}, 0
    for name, shape in file_shapes(config, layout, caption).items():
        end = offset + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in file_tensors(config, seed, layout, caption):
            file.write(tensor.view(-1).view(torch.uint8).numpy())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--version", choices=list(FAMILIES), default="v1")
    parser.add_argument("--family", choices=FAMILIES["v1"], default="flux")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", choices=list(PREFIX), default="nvidia")
    parser.add_argument("--caption", type=int, default=0, metavar="TOKENS", help="store a random caption too")
    parser.add_argument("--pth", action="store_true", help="write a .pth (torch.save), which holds one whole copy")
    args = parser.parse_args(argv)
    try:
        config = full_size_config(args.version, args.family)
        if args.pth:
            torch.save(dict(file_tensors(config, args.seed, args.layout, args.caption)), args.out)
        else:
            write_safetensors(args.out, config, args.seed, args.layout, args.caption)
    except (ValueError, OSError) as error:
        print(f"synthetic: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
