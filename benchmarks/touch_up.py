"""A 256 px mask drawn again with the bundled model: what it costs, whether its border shows, and what else changes.

`python -m benchmarks.touch_up --held FOLDER` (see photos.py) prints the table of RESULTS.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.photos import load_held
from pid_core import NANO_PATH, decode, load_network, touch_up
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.rgb import to_rgb_latent
from pid_core.model.config import RELEASED
from pid_core.model.cost import forward_flops, trunk_work
from pid_core.windows.part import part_around
from pid_core.windows.plan import choose_plan, plan_flops

SIDE, LARGE = 256, 4096  # pixels of the mask, and of the picture whose cost is counted
PICTURE = 1536  # of the pictures that are drawn, both sides
BAND = 2  # pixels to each side of the mask's border that count as border
SIGMA = 0.1  # inside; the picture around is drawn at 0


def square(side: int, corner: int) -> Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., corner : corner + SIDE, corner : corner + SIDE] = 1
    return mask


def cost(config) -> tuple[int, int, float]:
    """Network calls of a decode of LARGE x LARGE and of the mask alone, and the FLOP of the second over the first."""
    overlap = min(512, config.window_max // 4)
    plan = choose_plan(LARGE, LARGE, config, memory_budget=24e9, overlap=overlap, device="cuda")
    part = part_around(square(LARGE, 1900) > 0, config, 32)
    work = trunk_work(config, part.height, part.width) + config.steps * forward_flops(config, part.height, part.width)
    whole = trunk_work(config, LARGE, LARGE) + config.steps * plan_flops(plan, config)
    return config.steps * plan.count, config.steps, work / whole


def steps_across(picture: Tensor, near: Tensor) -> float:
    """Mean absolute step between neighbouring pixels [1, 3, H, W], of those that lie in `near` [H, W]."""
    down, across = (picture.diff(dim=axis).abs().mean(dim=(0, 1)) for axis in (-2, -1))
    return float(torch.cat([down[near[1:]], across[near[:, 1:]]]).mean())


def border(mask: Tensor, feather: int) -> Tensor:
    """Pixels near the mask's border and in its feather, [H, W]."""
    outer, inner = (
        torch.nn.functional.max_pool2d(m, 2 * reach + 1, stride=1, padding=reach)
        for m, reach in ((mask, feather + BAND), (1 - mask, BAND))
    )
    return ((outer > 0) & (inner > 0))[0, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", type=Path, required=True)
    net = load_network(NANO_PATH)
    for name, config in {"pid_nano": net.config, **RELEASED}.items():
        whole, part, share = cost(config)
        print(f"| {name} | {whole} | {part} | {100 * share:.1f} % |")

    corner, feather = (PICTURE - SIDE) // 2 + 37, 32
    mask = square(PICTURE, corner)
    near = border(mask, feather)
    for name, photo in load_held(parser.parse_args().held):
        small = photo[:, : PICTURE // 4, : PICTURE // 4].permute(1, 2, 0)[None]
        latent = to_rgb_latent(small)
        clean, noisy = (prepare_lq(latent, "rgb", sigma, seed=1) for sigma in (0.0, SIGMA))
        began = time.perf_counter()
        picture = decode(net, clean.latent, seed=0)
        between = time.perf_counter()
        out = touch_up(net, picture, noisy.latent, mask, degrade_sigma=noisy.sigma, seed=1, feather=feather)
        ended = time.perf_counter()
        uniform = decode(net, noisy.latent, degrade_sigma=noisy.sigma, seed=1)
        sharp = touch_up(net, picture, noisy.latent, mask, degrade_sigma=noisy.sigma, seed=1, feather=0)
        beside = (steps_across(picture, near) + steps_across(uniform, near)) / 2
        edge = border(mask, 0)
        plain = (steps_across(picture, edge) + steps_across(uniform, edge)) / 2
        far = torch.nn.functional.max_pool2d(mask, 2 * feather + 1, stride=1, padding=feather)[0, 0] == 0
        same = torch.equal(out[..., far], picture[..., far])
        inside = (out - picture).abs()[..., mask[0, 0] > 0].mean() * 127.5
        print(
            f"| {name} | {(ended - between) / (between - began):.3f} | {steps_across(out, near) / beside:.3f} | "
            f"{steps_across(sharp, edge) / plain:.3f} | {inside:.1f} | {'yes' if same else 'NO'} |"
        )


if __name__ == "__main__":
    main()
