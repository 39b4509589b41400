"""The command `upscale`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..assets import NANO_PATH
from ..images.files import FORMATS, Picture, check_output, read_picture, write_picture
from ..images.framing import TARGETS, Framing, Size
from ..latents.families import LATENT_FAMILIES
from ..latents.files import read_latent
from ..latents.noise import sigma_per_image
from ..model.devices import choose_device
from ..printable import printable
from ..upscale.upscaler import Drawing, Prepared, Upscaler
from ..version import pack_version
from .bar import progress_bar
from .bridges import add_bridge_arguments, bridge_for, check_bridge_arguments, read_text
from .remedies import explain
from .seeds import check_seed

ABOUT = "`upscale IMAGE -o OUT.png`: enlarge a picture, by default four times with the bundled model, without ComfyUI."
MORE = (
    "Any other checkpoint needs the VAE of its family, --vae, or a latent instead of a picture, --latent; and a text, "
    "--clip with --text, or --caption. NVIDIA's weights carry a non-commercial licence, NSCLv1."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command for a picture takes."""
    parser.epilog = MORE
    parser.add_argument("image", type=Path, metavar="IMAGE", nargs="?", help="the picture to enlarge")
    endings = ", ".join(dict.fromkeys(FORMATS))
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"where to write the result ({endings})")
    parser.add_argument("--overwrite", action="store_true", help="replace the output where it is there already")
    parser.add_argument("--latent", type=Path, metavar="FILE", help="decode this instead of a picture (.latent)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--factor", type=float, help="how many times as large each side becomes; by default 4")
    size.add_argument(
        "--target",
        choices=TARGETS,
        help="the area of 2048 x 2048 or 4096 x 4096, in the picture's shape; dinov2 and siglip: 2K by default",
    )
    parser.add_argument("--model", type=Path, default=NANO_PATH, help="a PiD checkpoint; by default the bundled one")
    families = sorted({row.name for row in LATENT_FAMILIES.values()})
    parser.add_argument("--family", choices=families, help="whose latents it reads, where neither file nor name tells")
    add_bridge_arguments(parser)
    parser.add_argument(
        "--sigma",
        type=float,
        help="degrade_sigma, 0 to 1: noise added and removed again; by default 0, or what the latent carries",
    )
    parser.add_argument("--steps", type=int, help="1 to 4; by default what the checkpoint is best at")
    parser.add_argument("--seed", type=int, default=0, help="0 to 2^64 - 1; another one draws other fine detail")
    parser.add_argument("--device", help="cpu, cuda, ...; by default the GPU where there is one")


class Source(NamedTuple):
    """What is decoded, and the size of the result. framing: of a picture. prepared: of a latent, which needs no VAE."""

    path: Path
    output: Size
    picture: Picture | None = None
    framing: Framing | None = None
    prepared: Prepared | None = None

    @property
    def decoded(self) -> Size:
        """Pixels that the network draws."""
        return self.output if self.framing is None else self.framing.decoded

    @property
    def is_transparent(self) -> bool:
        """Whether the result has a fourth channel."""
        return self.picture is not None and self.picture.alpha is not None

    def __str__(self) -> str:
        return (
            f"{printable(self.path.name)} -> {self.output}"
            if self.framing is None
            else (f"{self.framing.source} -> {self.output}")
        )


def run(args: argparse.Namespace) -> int:
    """All that can be wrong is found before anything large is loaded; what encodes is gone before the network comes."""
    sigma_per_image(args.sigma or 0.0, 1)
    check_seed(args.seed)
    check_bridge_arguments(args, text=args.text)
    _check_source_arguments(args)
    device = choose_device(args.device)
    upscaler = Upscaler.outline(args.model, device, family=args.family)
    if upscaler.family.square and args.image is not None and args.target is None and args.factor is None:
        args.target = "2K"  # its encoder takes one square, which a factor rarely fits
    source = _read_source(args, upscaler)
    check_output(args.output, source.output, source=source.path, overwrite=args.overwrite, alpha=source.is_transparent)
    steps = upscaler.net.config.steps if args.steps is None else args.steps
    upscaler.plan(source.decoded, steps)
    caption = read_text(args, upscaler)
    files = bridge_for(args, upscaler)

    upscaler.bridge = None if files is None else files.open(device)
    prepared, caption = _encode(args, source, upscaler, caption)
    for warning in prepared.lq.warnings:
        print(explain(warning), file=sys.stderr)
    upscaler = Upscaler.load(args.model, device, family=args.family)
    drawing = upscaler.plan(source.decoded, steps)
    print(_announce(source, drawing, device), file=sys.stderr)
    with progress_bar(drawing.flop) as on_part, warnings.catch_warnings():
        warnings.showwarning = _say
        whole = upscaler.draw(prepared, drawing, caption=caption, steps=steps, seed=args.seed, on_part=on_part)
    alpha = whole[..., 3] if source.is_transparent else None
    about = _about(args, prepared, steps)
    print(write_picture(args.output, whole[..., :3], alpha, about=about, overwrite=args.overwrite))
    return 0


def _check_source_arguments(args: argparse.Namespace) -> None:
    if args.latent is None and args.image is None:
        raise ValueError("there is nothing to enlarge: name a picture, or a latent with --latent")
    if args.latent is None:
        return
    if args.image is not None:
        raise ValueError("a picture and --latent are both given, and one is decoded at a time: leave one of them out")
    if args.vae is not None:
        raise ValueError("a latent needs no VAE: leave --vae out")
    if args.factor is not None or args.target is not None:
        raise ValueError("a latent decodes to its own size: leave --factor and --target out")


def _read_source(args: argparse.Namespace, upscaler: Upscaler) -> Source:
    if args.latent is not None:
        prepared = upscaler.prepare_latent(read_latent(args.latent), args.sigma, args.seed)
        return Source(args.latent, prepared.size, prepared=prepared)
    picture = read_picture(args.image)
    for note in picture.notes:
        print(note, file=sys.stderr)
    if args.vae is None:
        upscaler.check_pictures()
    height, width = picture.image.shape[:2]
    factor = 4.0 if args.factor is None else args.factor
    framing = upscaler.frame(height, width, args.target or "factor", factor)
    return Source(args.image, framing.output, picture, framing)


def _encode(
    args: argparse.Namespace, source: Source, upscaler: Upscaler, caption: Tensor | None
) -> tuple[Prepared, Tensor | None]:
    """The picture's latent and the text's caption, one encoder at a time."""
    bridge, prepared = upscaler.bridge, source.prepared
    if bridge is not None and args.clip is not None:
        print("encoding the text", file=sys.stderr)
        caption = bridge.encode_text(args.text or "")
        bridge.free()
    if source.picture is not None and source.framing is not None:
        if bridge is not None:
            print("encoding the picture", file=sys.stderr)
        prepared = upscaler.prepare_picture(source.picture, source.framing, args.sigma or 0.0, args.seed)
    if bridge is not None:
        bridge.free()
    assert prepared is not None
    return prepared, caption


def _about(args: argparse.Namespace, prepared: Prepared, steps: int) -> dict[str, object]:
    """What the file says of its making."""
    size = {"target": args.target} if args.target else {"factor": 4.0 if args.factor is None else args.factor}
    return {
        "software": f"ComfyUI-PiDKit {pack_version()}",
        "model": Path(args.model).name,
        **({} if args.latent else size),
        "degrade_sigma": float(prepared.lq.sigma),
        "steps": steps,
        "seed": args.seed,
    }


def _announce(source: Source, drawing: Drawing, device: torch.device) -> str:
    """What is to be drawn and what it takes, before it begins."""
    plan, flop = drawing.plan, drawing.flop
    how = "in one frame" if plan.count == 1 else f"in {plan.count} windows of {plan.size[1]} x {plan.size[0]}"
    work = f"{flop / 1e12:.3g} TFLOP" if flop >= 1e11 else f"{flop / 1e9:.3g} GFLOP"
    return f"{source} on {device}, {how}, about {drawing.memory / 1e9:.1f} GB, {work}"


def _say(message, *_, **__) -> None:
    print(f"\n{message}", file=sys.stderr)
