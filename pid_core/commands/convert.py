"""The command `convert`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..checkpoints.convert import convert
from ..checkpoints.packing import PACKED
from ..checkpoints.packing_report import measure, read_as_latent
from ..checkpoints.reading import read_checkpoint
from ..latents.families import LATENT_FAMILIES
from ..model.devices import choose_device
from ..printable import printable
from ..sampling.schedule import SCHEDULES

ABOUT = "`convert FILE [-o OUT]`: a PiD checkpoint (NVIDIA's .pth, ...) as safetensors that says what it is."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `convert` takes."""
    families = sorted({row.name for row in LATENT_FAMILIES.values()})
    parser.add_argument("file", type=Path, metavar="FILE", help="a checkpoint: .pth, or safetensors without metadata")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="by default beside FILE, as .safetensors")
    parser.add_argument("--family", choices=families, help="whose latents it reads, where neither file nor name tells")
    parser.add_argument("--schedule", choices=SCHEDULES, help="likewise")
    parser.add_argument(
        "--to",
        choices=PACKED,
        help="pack the large layers' weights into 8 bits, in ComfyUI's format of that name, and report what it costs",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        help="with --to: measure a decode of this too: a picture (rgb checkpoints), or a .latent file",
    )
    parser.add_argument("--no-report", action="store_true", help="with --to: write the file and measure nothing")
    parser.add_argument("--device", help="where it is measured: cpu, cuda, ...; by default the GPU where there is one")


def run(args: argparse.Namespace) -> int:
    """Convert a file; returns the exit code."""
    options = {"family": args.family, "schedule": args.schedule}
    if args.to is None and (args.picture or args.no_report or args.device):
        raise ValueError("--picture, --no-report and --device belong to --to: say which format")
    report = args.to is not None and not args.no_report
    device, latents = None if args.to is None else choose_device(args.device), {}
    if args.picture is not None:
        if not report:
            raise ValueError("--no-report measures nothing: leave it or --picture out")
        config = read_checkpoint(args.file, **options).config
        latents[printable(args.picture.name)] = read_as_latent(args.picture, config)
    target, config = convert(args.file, args.output, to=args.to, **options)
    what = [f"PiD {config.version}" if config.has_latent else config.version, config.family, config.schedule, args.to]
    print(", ".join(part for part in what if part), file=sys.stderr)
    print(target, flush=True)
    if report and device is not None:
        found = measure(args.file, args.to, latents=latents, device=device, **options)
        print("\n".join(found.lines()), file=sys.stderr)
    return 0
