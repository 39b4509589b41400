"""The command `doctor`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from ..machine.comfy_home import add_home_arguments, find_comfyui, find_home
from ..machine.report import examine
from ..version import too_old
from .mending import Consent, mend

ABOUT = "`doctor`: is this machine ready for PiD, and what is missing; exit code 0 when the bundled model decodes."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `doctor` takes."""
    parser.add_argument("--json", action="store_true", help="as JSON, for bug reports; it holds nothing private")
    parser.add_argument(
        "--fix", action="store_true", help="then offer what can be mended: fetch files, add models that lie elsewhere"
    )
    parser.add_argument("--yes", action="store_true", help="with --fix: yes to all but licences, without asking")
    parser.add_argument("--accept-licence", action="store_true", help="with --fix: accept licences without asking")
    add_home_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; returns the exit code."""
    if (args.yes or args.accept_licence) and not args.fix:
        raise ValueError("--yes and --accept-licence are for --fix: add it, or leave them out")
    if args.json and args.fix:
        raise ValueError("--json is a report alone: leave --fix out")
    home = find_home(args, find_comfyui(args.comfyui))
    report = examine(home)
    print(json.dumps(report, indent=1) if args.json else "\n".join(_lines(report)))
    code = 0
    if args.fix:
        print("What can be mended")
        code = mend(report, home, Consent(yes=args.yes, accept_licence=args.accept_licence))
    return code if report["bundled_model"]["decodes"] else 1


def _lines(report: dict) -> Iterator[str]:
    yield "Versions"
    for name, version in report["versions"].items():
        oldest = too_old(name, version or "")
        yield f"  {name}: {version or ('not found' if name == 'comfyui' else 'not in this Python')}" + (
            f", TOO OLD: PiDKit needs {oldest} or newer" if version and oldest else ""
        )
    device = report["device"]
    yield "Device"
    yield f"  {device['kind']}: {device['name']}, {_gb(device['free'])} free of {_gb(device['total'])}"
    if "fused_kernels" in device:
        yield f"  fused kernels: {device['fused_kernels']}"
        yield from (f"  {line}" for line in device["attention"])
    if report["variables_set"]:
        yield f"  set: {', '.join(report['variables_set'])}"
    yield "Bundled model"
    bundled = report["bundled_model"]
    yield "  decodes" if bundled["decodes"] else f"  DOES NOT DECODE: {bundled['why']}"
    yield "A 4096 x 4096 picture with PiD v1.5, now"
    plan = report["plan_4k"]
    peak = f"; peak {_gb(plan['peak'])} beside {_gb(plan['weights'])} of weights" if plan["fits"] else ""
    yield f"  {plan['plan']}{peak}"
    if "files" not in report:
        yield "ComfyUI"
        yield "  not found: set COMFYUI_PATH, or say --comfyui or --models-directory PATH, to see models and workflows"
        return
    yield "Models"
    for file in report["files"]:
        yield f"  {file['folder']}/{file['name']}: {'' if file['usable'] else 'NOT USABLE, '}{file['what']}"
    if not report["files"]:
        yield "  none besides the bundled one"
    yield "Example workflows"
    for name, needs in report["workflows"].items():
        missing = [need for need in needs if not need["here"]]
        yield f"  {name}: {'ready' if not missing else f'NOT READY, {len(missing)} of {len(needs)} files'}"
        for need in missing:
            yield f"    {need['folder']}/{need['name']}: {need['how']}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
