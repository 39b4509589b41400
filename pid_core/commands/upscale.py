"""The command `upscale`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from ..assets import NANO_PATH
from ..checkpoint import load_network
from ..decode import decode
from ..devices import choose_device
from ..latents import degrade
from ..rgb import to_image, to_rgb_latent

ABOUT = "`upscale IMAGE -o OUT.png`: enlarge a picture four times with the bundled model, without ComfyUI."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="IMAGE", help="the picture to enlarge")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the result (PNG, ...)")
    parser.add_argument("--model", type=Path, default=NANO_PATH, help="a checkpoint of the rgb family")
    parser.add_argument("--sigma", type=float, default=0.0, help="degrade_sigma, 0 to 1: noise added and removed again")
    parser.add_argument("--steps", type=int, help="1 to 4; by default what the checkpoint is best at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, ...; by default the GPU where there is one")


def run(args: argparse.Namespace) -> int:
    image = read_image(args.image)
    device = choose_device(args.device)
    net = load_network(args.model, device=device)
    if net.family != "rgb":
        raise ValueError(
            f"{Path(args.model).name} decodes {net.family or 'VAE'} latents, not pictures; run it in ComfyUI behind "
            "its VAE, or leave --model out to use the bundled model"
        )
    latent = to_rgb_latent(image[None])
    if args.sigma > 0:
        latent = degrade(latent, args.sigma, "rgb", args.seed)
    height, width = (side * net.config.sr_scale for side in image.shape[:2])
    print(f"{image.shape[1]} x {image.shape[0]} -> {width} x {height} on {device}", file=sys.stderr)
    run = {"steps": args.steps, "seed": args.seed, "size": (height, width), "callback": _show_progress}
    pixels = decode(net, latent, degrade_sigma=args.sigma, **run)
    write_image(args.output, to_image(pixels)[0])
    print(args.output)
    return 0


def read_image(path: Path) -> Tensor:
    """A picture file as [H, W, 3] in [0, 1]. Raises ValueError or OSError in one line."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return torch.from_numpy(np.array(file.convert("RGB"))).float() / 255
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no picture that can be read") from None


def write_image(path: Path, image: Tensor) -> None:
    """[H, W, 3] in [0, 1] to a file, rounded to 8 bits, written beside and renamed so that no half file is left."""
    from PIL import Image

    picture = Image.fromarray((image * 255).round().byte().cpu().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        picture.save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _show_progress(step: int, steps: int, _: Tensor) -> None:
    bar = "#" * (24 * step // steps)
    print(
        f"\r[{bar:<24}] step {step} of {steps}",
        end="\n" if step == steps else "",
        file=sys.stderr,
        flush=True,
    )
