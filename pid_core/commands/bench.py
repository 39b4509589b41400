"""The command `bench`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..assets import NANO_PATH
from ..bench.beside_core import MakeCore
from ..bench.header import KEY, TITLE, look_at_header
from ..bench.machine import describe_machine
from ..bench.measure import seconds_of
from ..bench.private import Scrub, public_name
from ..bench.report import Files, Report
from ..bench.rows import FAILED, Row
from ..bench.run import NO_CORE, Say, Settings, bench
from ..bench.subject import Subject
from ..checkpoints.reading import load_network
from ..hub.catalogue import FILES, local_name
from ..hub.model_sets import TEXT_ENCODERS
from ..images.files import read_picture
from ..images.framing import MAX_SIDE, TARGETS
from ..machine.comfy_home import Home, find_comfyui, model_files
from ..machine.encoders import check_text_encoder
from ..machine.example_pictures import FOLDER
from ..model.devices import choose_device
from ..upscale.bridge import Bridge
from ..upscale.upscaler import Upscaler
from .bridges import add_bridge_arguments, bridge_for, check_bridge_arguments

ABOUT = (
    "`bench`: measure PiD on this machine; writes a Markdown table and JSON without anything private, to show others."
)
MORE = (
    "Without --model: a released PiD checkpoint in ComfyUI's models folder, else the bundled model. On a CPU sizes are "
    "small unless --size asks for others; --quick takes a quarter of the time. Ctrl+C keeps the rows that are there."
)
PHOTO = FOLDER / "pidkit_photo.png"
SMALLEST = 128
SMALL_FILE = 10_000_000  # bytes
DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `bench` takes."""
    parser.epilog = MORE
    parser.add_argument("--model", type=Path, metavar="FILE", help="a PiD checkpoint")
    parser.add_argument("--family", help="whose latents it reads, where neither file nor name tells")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the network; auto: as upscale has it")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="for seams; by default a photo of this pack")
    parser.add_argument("-o", "--output", type=Path, default=Path("."), metavar="FOLDER", help="for the two files")
    parser.add_argument("--quick", action="store_true", help="fewer parts, smaller sizes")
    parser.add_argument(
        "--size", type=_side, nargs="+", metavar="SIDE", help="of the canvases: 1024, 2K, 4K ...; by default 2K and 4K"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; by default the GPU where there is one")
    add_bridge_arguments(parser, text=False)


def _side(text: str) -> int:
    side = TARGETS.get(text.upper()) or (int(text) if text.isdecimal() and len(text) < 6 else 0)
    if not SMALLEST <= side <= MAX_SIDE:
        raise argparse.ArgumentTypeError(f"a side is 2K, 4K or {SMALLEST} to {MAX_SIDE} pixels, not {text[:20]}")
    return side


def run(args: argparse.Namespace) -> int:
    """Measure, and write what is known after every part; the exit code is 1 where a part failed.

    All that can be wrong with the arguments is found before the files are begun.
    """
    check_bridge_arguments(args)
    device, home, say = choose_device(args.device), _home(args), partial(print, file=sys.stderr, flush=True)
    model = _choose_model(args, home)
    upscaler = Upscaler.outline(model, device, family=args.family)
    picture = read_picture(args.picture or PHOTO)
    bridge = _bridge(args, upscaler, home, device, say)
    caption = _read_caption(args, upscaler)
    dtype = upscaler.net.compute_dtype if args.dtype == "auto" else getattr(torch, args.dtype)
    settings = Settings(args.quick, args.size, *_core(args, device), picture)

    given = (args.model, args.picture, args.output, args.comfyui, args.vae, args.statistics, args.clip, args.caption)
    scrub = Scrub(given)
    name = public_name(model, upscaler.net.config)
    about = {"name": name, "dtype": str(dtype).removeprefix("torch."), "quick": args.quick}
    files, report = Files(args.output), Report(describe_machine(device), about)
    say(f"{report.machine['name']}, {name}, {about['dtype']}")
    say(f"rows go into {files.markdown} and {files.json.name} as they come")
    if device.type == "cpu":
        say("this is a CPU: figures of a graphics card will have nothing in common with these")
    try:
        report.rows.append(_header(model, scrub))
        files.write(report)
        if bridge is not None and args.clip is not None:
            caption = _encode_text(bridge, say)
        subject = _load(args, model, device, dtype, report, say)
        subject.caption, subject.bridge = caption, None if args.vae is None else bridge
        files.write(report)
        bench(subject, settings, report, lambda: files.write(report), scrub, say)
    finally:
        print(report.as_markdown())
        print(f"{files.markdown}\n{files.json}")
    return int(any(row.status == FAILED for row in report.rows))


def _home(args: argparse.Namespace) -> Home | None:
    code = find_comfyui(args.comfyui)
    return None if code is None else Home.at(code)


def _choose_model(args: argparse.Namespace, home: Home | None) -> Path:
    """The file that is named, a released one that is there, or the bundled one; says which where nobody named it."""
    if args.model is not None:
        return args.model
    here = {} if home is None else dict(model_files(home.folders["diffusion_models"]))
    for file in FILES:
        name = local_name(file, here) if file.folder == "diffusion_models" and file.steps == 4 else None
        if name is not None and file.precision in ("", "bf16"):
            print(f"{file.name} is in ComfyUI's models folder and is taken; --model names another", file=sys.stderr)
            return here[name]
    print("the bundled model is taken; --model names another", file=sys.stderr)
    return NANO_PATH


def _header(model: Path, scrub: Scrub) -> Row:
    try:
        return look_at_header(model)
    except (ValueError, OSError) as error:
        return Row(KEY, TITLE, scrub(error), FAILED)


def _load(args, model: Path, device: torch.device, dtype: torch.dtype, report: Report, say: Say) -> Subject:
    """The network, with a row about the time it takes."""
    loaded = []
    load = partial(load_network, model, device=device, family=args.family)
    say("loading the model")
    taken = seconds_of(lambda: loaded.append(load(dtype=dtype)), device)
    size = model.stat().st_size
    mapped = device.type == "cpu" and size > SMALL_FILE
    text = f"{taken:.2g} s for {size / 1e9:.2g} GB" + (
        "; the file is mapped, and read when it is used" if mapped else ""
    )
    report.rows.append(Row("load", "load", text, values={"load_s": taken, "bytes": size}))
    return Subject(loaded[0], device, str(report.model["name"]), load=lambda other: load(dtype=other))


def _bridge(args, upscaler: Upscaler, home: Home | None, device: torch.device, say: Say) -> Bridge | None:
    """What encodes pictures and texts: the files that are named, else those that are in ComfyUI's models folder."""
    named = args.vae is not None or args.clip is not None
    if not named and home is not None and upscaler.needs_vae:
        vaes = [file.name for file in FILES if file.folder == "vae" and file.family == upscaler.family.name]
        args.vae = _first_of(home, "vae", vaes)
        if args.vae is not None and args.caption is None:
            args.clip = _first_of(home, "text_encoders", TEXT_ENCODERS)
    try:
        if args.clip is not None:
            check_text_encoder(args.clip, upscaler.net.config.caption_width)
        files = bridge_for(args, upscaler)
    except ValueError as error:
        if named:
            raise
        say(f"seams are left out: {error}")
        args.vae = args.clip = None
        return None
    return None if files is None else files.open(device)


def _first_of(home: Home, folder: str, names: Sequence[str]) -> Path | None:
    here: Mapping[str, Path] = {path.name: path for _, path in model_files(home.folders[folder])}
    return next((here[name] for name in names if name in here), None)


def _read_caption(args: argparse.Namespace, upscaler: Upscaler) -> Tensor | None:
    from ..captions.text import read_caption

    if args.caption is None:
        return None
    caption = read_caption(args.caption).states
    upscaler.check_caption(caption)
    return caption


def _encode_text(bridge: Bridge, say: Say) -> Tensor:
    """Of no words; the encoder is gone when the network comes."""
    say("encoding a text")
    caption = bridge.encode_text("")
    bridge.free()
    return caption


def _core(args, device: torch.device) -> tuple[MakeCore | None, str]:
    """What makes core's network, or why there is none."""
    folder = find_comfyui(args.comfyui)
    if folder is None:
        return None, NO_CORE
    if not (folder / "comfy" / "sd.py").is_file():
        return None, "ComfyUI's models were found but not its code: name the folder with main.py with --comfyui"

    def make(net):
        # here, because the core does without it
        from pid_bridges.core_network import core_calls

        return core_calls(net, folder, device)

    return make, ""
