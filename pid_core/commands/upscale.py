"""The command `upscale`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

from ..assets import NANO_PATH
from ..images.files import FORMATS, check_output, read_picture, write_picture
from ..images.framing import Framing, plan_framing
from ..latents.noise import sigma_per_image
from ..model.devices import choose_device
from ..upscale.upscaler import Drawing, Upscaler
from ..version import pack_version
from .bar import progress_bar

SEEDS = 2**64

ABOUT = "`upscale IMAGE -o OUT.png`: enlarge a picture four times with the bundled model, without ComfyUI."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command for a picture takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="the picture to enlarge")
    endings = ", ".join(dict.fromkeys(FORMATS))
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"where to write the result ({endings})")
    parser.add_argument("--overwrite", action="store_true", help="replace the output where it is there already")
    parser.add_argument(
        "--factor", type=float, default=4.0, help="how many times as large each side becomes; 4 by default"
    )
    parser.add_argument("--model", type=Path, default=NANO_PATH, help="a checkpoint of the rgb family")
    parser.add_argument("--sigma", type=float, default=0.0, help="degrade_sigma, 0 to 1: noise added and removed again")
    parser.add_argument("--steps", type=int, help="1 to 4; by default what the checkpoint is best at")
    parser.add_argument("--seed", type=int, default=0, help="0 to 2^64 - 1; another one draws other fine detail")
    parser.add_argument("--device", help="cpu, cuda, ...; by default the GPU where there is one")


def run(args: argparse.Namespace) -> int:
    """All that can be wrong is found before the picture is drawn."""
    sigma = float(sigma_per_image(args.sigma, 1))
    check_seed(args.seed)
    picture = read_picture(args.image)
    for note in picture.notes:
        print(note, file=sys.stderr)
    transparent = picture.alpha is not None
    height, width = picture.image.shape[:2]
    output = plan_framing(height, width, "rgb", target="factor", factor=args.factor).output  # of any family
    check_output(args.output, output, source=args.image, overwrite=args.overwrite, alpha=transparent)
    upscaler = Upscaler.load(args.model, choose_device(args.device))
    upscaler.check_pictures()
    framing = upscaler.frame(height, width, factor=args.factor)
    steps = upscaler.net.config.steps if args.steps is None else args.steps
    drawing = upscaler.plan(framing.decoded, steps)
    print(_announce(framing, drawing, upscaler.device), file=sys.stderr)
    prepared = upscaler.prepare_picture(picture, framing, sigma, args.seed)
    with progress_bar(drawing.flop) as on_part, warnings.catch_warnings():
        warnings.showwarning = _say
        whole = upscaler.draw(prepared, drawing, steps=steps, seed=args.seed, on_part=on_part)
    about = {
        "software": f"ComfyUI-PiDKit {pack_version()}",
        "model": Path(args.model).name,
        "factor": args.factor,
        "degrade_sigma": sigma,
        "steps": steps,
        "seed": args.seed,
    }
    alpha = whole[..., 3] if transparent else None
    print(write_picture(args.output, whole[..., :3], alpha, about=about, overwrite=args.overwrite))
    return 0


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed that there is not."""
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed is {seed}, but must be from 0 to 2^64 - 1")


def _announce(framing: Framing, drawing: Drawing, device: torch.device) -> str:
    """What is to be drawn and what it takes, before it begins."""
    plan, flop = drawing.plan, drawing.flop
    how = "in one frame" if plan.count == 1 else f"in {plan.count} windows of {plan.size[1]} x {plan.size[0]}"
    work = f"{flop / 1e12:.3g} TFLOP" if flop >= 1e11 else f"{flop / 1e9:.3g} GFLOP"
    return f"{framing.source} -> {framing.output} on {device}, {how}, about {drawing.memory / 1e9:.1f} GB, {work}"


def _say(message, *_, **__) -> None:
    print(f"\n{message}", file=sys.stderr)
