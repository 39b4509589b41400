"""What fits on a card, worked out by the memory model that plans the windows: computed, not measured.

    python -m benchmarks.hardware           # prints the tables
    python -m benchmarks.hardware --write   # and puts them into docs/hardware.md

A run is PiD Decode's in ComfyUI, one picture, its four steps, with the overlap that is the default. Free is the card's
memory less SYSTEM (the desktop, and what CUDA takes for itself) and less RESERVE (what ComfyUI leaves to others). As
ComfyUI does, weights that leave less than half of that for the run stay in main memory in part and are streamed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch

from pid_core.model.config import PiDConfig
from pid_core.model.pixel_cache import PIXEL_CACHES
from pid_core.windows.memory import Canvases, MemoryModel, Overhead
from pid_core.windows.plan import OVERLAP, NoPlanError, WindowPlan

from .synthetic import full_size_config
from .written import write_between

PAGE = Path(__file__).parents[1] / "docs" / "hardware.md"
GIB = 2**30
CARDS = (6, 8, 10, 12, 16, 24, 32, 48, 80)  # GiB
SIDES = {"2K": 2048, "4K": 4096, "8K": 8192}
SYSTEM, RESERVE = 1.0 * GIB, 0.4 * GIB
# What PiD Decode holds in windows, and without, as `nodes.comfy.canvases` counts it; tests/comfyui/test_canvases.py
# compares them.
IN_COMFYUI, FRAME_IN_COMFYUI = Canvases(2, 5, 1, 3), Canvases(5, 0, 5, 3)
# Bytes of a v1.5 file: 1,400 million parameters, of which 8 bits pack 793 million (RESULTS.md, In 8 bits).
WEIGHTS = {"bf16": 2.80e9, "fp8, int8": 2.01e9, "float32": 5.60e9}
CUDA = torch.device("cuda")


class Fit(NamedTuple):
    """A planned run: peak in bytes with the weights; streamed: some of the weights stay in main memory."""

    plan: WindowPlan
    peak: float
    streamed: bool


def fit(config: PiDConfig, card: float, weights: str, side: int, kind: str = "kernels") -> Fit | None:
    """The run planned on a card of so many GiB; None where nothing fits. kind: as `cost.peak_bytes` takes it."""
    room, size = card * GIB - SYSTEM - RESERVE, WEIGHTS[weights]
    dtype_bytes = 4 if weights == "float32" else 2
    overhead = Overhead.of(config, 1, side, side, dtype_bytes, IN_COMFYUI)
    memory = MemoryModel(
        config,
        CUDA,
        budget=max(room - size, room / 2),
        dtype_bytes=dtype_bytes,
        kind=lambda pixels: kind,
        overhead=overhead,
    )
    try:
        plan = memory.plan(side, side, OVERLAP)
    except NoPlanError:
        return None
    taken = memory.of_plan(plan)
    return Fit(plan, min(size + taken, max(room, taken)), size + taken > room)


def cell(found: Fit | None) -> str:
    """The run in a few signs: windows and peak."""
    if found is None:
        return "does not fit"
    plan, (height, width) = found.plan, found.plan.size
    windows = "whole" if plan.count == 1 else f"{plan.count} of {width if height == width else f'{width} x {height}'}"
    return f"{windows}, {found.peak / 1e9:.1f} GB{'*' if found.streamed else ''}"


def table(config: PiDConfig, weights: tuple[str, ...], kind: str = "kernels", cards: tuple[int, ...] = CARDS) -> str:
    """Cards down, pictures across, in Markdown; neighbours of which all is the same share a row."""
    groups: list[tuple[list[int], list[str]]] = []
    for card in cards:
        rows = [
            " | ".join([name, *(cell(fit(config, card, name, side, kind)) for side in SIDES.values())])
            for name in weights
        ]
        if groups and groups[-1][1] == rows:
            groups[-1][0].append(card)
        else:
            groups.append(([card], rows))
    lines = ["| card | weights | " + " | ".join(SIDES) + " |", "|---" * (len(SIDES) + 2) + "|"]
    for group, rows in groups:
        name = f"{group[0]} to {group[-1]} GB" if len(group) > 1 else f"{group[0]} GB"
        lines += [f"| {name} | {row} |" for row in rows]
    return "\n".join(lines)


def frames(config: PiDConfig) -> str:
    """What one frame takes beside bf16 weights, by what is kept between pixel blocks."""
    lines = ["| in one frame, kept | 2K | 4K |", "|---|---|---|"]
    for name, cache in zip(("all", "the stream", "nothing"), PIXEL_CACHES, strict=True):
        needed = []
        for side in (2048, 4096):
            overhead = Overhead.of(config, 1, side, side, 2, FRAME_IN_COMFYUI)
            memory = MemoryModel(config, CUDA, dtype_bytes=2, kind=lambda pixels: "kernels", overhead=overhead)
            needed.append(f"{memory.needed(1, side, side, cache) / 1e9:.1f} GB")
        lines.append(f"| {name} | {' | '.join(needed)} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """By the names of the marks they stand between."""
    v1, v15 = full_size_config("v1"), full_size_config("v1.5")
    return {
        "v1.5": table(v15, ("bf16", "fp8, int8")),
        "v1": table(v1, ("bf16",)),
        "frame": frames(v15),
        "plain": table(v15, ("bf16", "float32"), "cuda"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What fits on a card, computed.")
    parser.add_argument("--write", action="store_true", help="into docs/hardware.md")
    options = parser.parse_args()
    for name, text in tables().items():
        print(f"{name}\n\n{text}\n")
        if options.write:
            write_between(PAGE, name, text)


if __name__ == "__main__":
    main()
