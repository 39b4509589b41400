"""The command `convert`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..convert import convert
from ..latents import LATENT_FAMILIES
from ..packing import PACKED
from ..schedule import SCHEDULES

ABOUT = "`convert FILE [-o OUT]`: a PiD checkpoint (NVIDIA's .pth, ...) as safetensors that says what it is."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    families = sorted({row.name for row in LATENT_FAMILIES.values()})
    parser.add_argument("file", type=Path, metavar="FILE", help="a checkpoint: .pth, or safetensors without metadata")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="by default beside FILE, as .safetensors")
    parser.add_argument("--family", choices=families, help="whose latents it reads, where neither file nor name tells")
    parser.add_argument("--schedule", choices=SCHEDULES, help="likewise")
    parser.add_argument(
        "--to", choices=PACKED, help="pack the large layers' weights into 8 bits, as ComfyUI reads them"
    )


def run(args: argparse.Namespace) -> int:
    target, config = convert(args.file, args.output, family=args.family, schedule=args.schedule, to=args.to)
    what = [f"PiD {config.version}" if config.has_latent else config.version, config.family, config.schedule]
    print(", ".join(part for part in what if part), file=sys.stderr)
    print(target)
    return 0
