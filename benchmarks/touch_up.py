"""A 256 px mask drawn again with the bundled model: what it costs, whether its border shows, and what else changes.

    python -m benchmarks.touch_up --held FOLDER | python -m benchmarks.written touch_up

Photos and the held ones' folder: benchmarks/photos.py.
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


def timed(net) -> tuple[float, float]:
    """Seconds of a decode of LARGE x LARGE in windows, and of the mask alone."""
    config = net.config
    plan = choose_plan(LARGE, LARGE, config, memory_budget=24e9, overlap=config.window_max // 4, device="cpu")
    latent = to_rgb_latent(torch.rand(1, LARGE // 4, LARGE // 4, 3, generator=torch.Generator().manual_seed(0)))
    began = time.perf_counter()
    picture = decode(net, latent, seed=0, windows=plan)
    between = time.perf_counter()
    touch_up(net, picture, latent, square(LARGE, 1900), seed=1)
    return between - began, time.perf_counter() - between


def row(net, name: str, photo: Tensor, feather: int = 32) -> str:
    """One photo's line of the second table."""
    mask = square(PICTURE, (PICTURE - SIDE) // 2 + 37)
    side = PICTURE // 4
    top, left = ((length - side) // 2 for length in photo.shape[-2:])
    latent = to_rgb_latent(photo[:, top : top + side, left : left + side].permute(1, 2, 0)[None])
    clean, noisy = (prepare_lq(latent, "rgb", sigma, seed=1) for sigma in (0.0, SIGMA))
    picture = decode(net, clean.latent, seed=0)
    uniform = decode(net, noisy.latent, degrade_sigma=noisy.sigma, seed=1)
    shares, same = [], True
    for reach in (feather, 0):
        out = touch_up(net, picture, noisy.latent, mask, degrade_sigma=noisy.sigma, seed=1, feather=reach)
        near = border(mask, reach)
        shares.append(2 * steps_across(out, near) / (steps_across(picture, near) + steps_across(uniform, near)))
        far = torch.nn.functional.max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)[0, 0] == 0
        same = same and torch.equal(out[..., far], picture[..., far])
        changed = float((out - picture).abs()[..., mask[0, 0] > 0].mean()) * 127.5
    return f"| {name} | {shares[0]:.3f} | {shares[1]:.3f} | {changed:.1f} | {'yes' if same else 'no'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", type=Path, required=True)
    held = load_held(parser.parse_args().held)
    net = load_network(NANO_PATH)
    print(f"| {LARGE} x {LARGE} | calls of the decode | of the mask | FLOP, share | time on this CPU |")
    print("|---|---|---|---|---|")
    whole_seconds, seconds = timed(net)
    spent = f"{seconds:.1f} s of {whole_seconds:.0f} s, {100 * seconds / whole_seconds:.1f} %"
    for name, config in {"pid_nano": net.config, **RELEASED}.items():
        whole, part, share = cost(config)
        print(f"| {name} | {whole} | {part} | {100 * share:.1f} % | {spent if config is net.config else ''} |")
    print("\n| photo | gradient at the border, feather 32 | feather 0 | change inside, 1/255 | outside the same |")
    print("|---|---|---|---|---|")
    for name, photo in held:
        print(row(net, name, photo))


if __name__ == "__main__":
    main()
