"""The command `upscale`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

from ..assets import NANO_PATH
from ..checkpoints.reading import load_network
from ..images.files import FORMATS, check_output, read_picture, write_picture
from ..images.framing import Framing, finish_image, plan_framing, prepare_image
from ..latents.noise import degrade, sigma_per_image
from ..latents.rgb import to_image, to_rgb_latent
from ..machine.memory import free_memory
from ..model.cost import trunk_work
from ..model.devices import choose_device
from ..sampling.decode import decode, decode_memory
from ..sampling.schedule import distilled_sigmas
from ..version import pack_version
from ..windows.memory import MemoryModel
from ..windows.plan import OVERLAP, NoPlanError, TooLittleMemoryError, WindowPlan, plan_flops
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
    if not 0 <= args.seed < SEEDS:
        raise ValueError(f"seed is {args.seed}, but must be from 0 to 2^64 - 1")
    picture = read_picture(args.image)
    for note in picture.notes:
        print(note, file=sys.stderr)
    image = picture.image[None]
    if picture.alpha is not None:
        image = torch.cat([image, picture.alpha[None, ..., None]], dim=-1)
    height, width = image.shape[1:3]
    framing = plan_framing(height, width, "rgb", target="factor", factor=args.factor)
    transparent = picture.alpha is not None
    check_output(args.output, framing.output, source=args.image, overwrite=args.overwrite, alpha=transparent)
    device = choose_device(args.device)
    net = load_network(args.model, device=device)
    if net.family != "rgb":
        raise ValueError(
            f"{Path(args.model).name} decodes {net.family or 'VAE'} latents, not pictures; run it in ComfyUI behind "
            "its VAE, or leave --model out to use the bundled model"
        )
    steps = net.config.steps if args.steps is None else args.steps
    distilled_sigmas(steps)

    memory = decode_memory(net.config, *framing.decoded, device, budget=free_memory(device), dtype_bytes=4)
    plan = _plan(memory, framing)
    flop = trunk_work(net.config, *framing.decoded) + steps * plan_flops(plan, net.config)
    print(_announce(framing, plan, device, memory.of_plan(plan), flop), file=sys.stderr)
    latent = to_rgb_latent(prepare_image(image, framing))
    if sigma > 0:
        latent = degrade(latent, sigma, "rgb", args.seed)
    with progress_bar(flop) as on_part, warnings.catch_warnings():
        warnings.showwarning = _say
        pixels = decode(
            net,
            latent,
            degrade_sigma=sigma,
            steps=steps,
            seed=args.seed,
            size=framing.decoded,
            windows=plan,
            on_part=on_part,
        )
    whole = finish_image(to_image(pixels).cpu(), framing, image)[0]
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


def _plan(memory: MemoryModel, framing: Framing) -> WindowPlan:
    """The cheapest windows that fit the memory, or the whole frame, as PiD Decode chooses them."""
    try:
        return memory.plan(*framing.decoded, OVERLAP)
    except NoPlanError as error:
        raise TooLittleMemoryError(
            f"too little memory for {framing.decoded} pixels: {memory.shortage(error)}: close other programs, or make "
            "the picture smaller"
        ) from None


def _announce(framing: Framing, plan: WindowPlan, device: torch.device, memory: float, flop: float) -> str:
    """What is to be drawn and what it takes, before it begins."""
    how = "in one frame" if plan.count == 1 else f"in {plan.count} windows of {plan.size[1]} x {plan.size[0]}"
    work = f"{flop / 1e12:.3g} TFLOP" if flop >= 1e11 else f"{flop / 1e9:.3g} GFLOP"
    return f"{framing.source} -> {framing.output} on {device}, {how}, about {memory / 1e9:.1f} GB, {work}"


def _say(message, *_, **__) -> None:
    print(f"\n{message}", file=sys.stderr)
