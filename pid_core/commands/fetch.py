"""The command `fetch`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from ..hub.catalogue import FILES, HubFile, get_file, local_name
from ..hub.download import fetch, set_aside_if_damaged
from ..hub.licences import LICENCES, check_licences
from ..machine.comfy_home import add_home_arguments, find_comfyui, find_home, model_files

RECORD = Path("__pidkit") / "licences.json"  # in ComfyUI's user folder, where the nodes keep it too

ABOUT = "`fetch NAME`: download a model file into ComfyUI's models folder, checked, and continued where it was cut off."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `fetch` takes."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a file that --list shows")
    parser.add_argument("--list", action="store_true", help="show the files that can be fetched, and stop")
    parser.add_argument(
        "--accept-licence", action="store_true", help="accept the licences of these files; it is recorded"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where to put them; by default ComfyUI's models folder"
    )
    add_home_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Fetch the files named; returns the exit code."""
    if args.list or not args.names:
        print("\n".join(_table()))
        return 0
    files = [get_file(name) for name in args.names]
    folders, record = _places(args, files)
    for file in files:
        print(fetch_file(file, folders[file.folder], record, args.accept_licence))
    return 0


def _places(args: argparse.Namespace, files: list[HubFile]) -> tuple[Mapping[str, list[Path]], Path]:
    """Where each kind of file goes, by its folder's name, and the record of licences."""
    if args.to:
        return {file.folder: [args.to] for file in files}, args.to / "pidkit_licences.json"
    home = find_home(args, find_comfyui(args.comfyui))
    if home is None:
        raise ValueError("no ComfyUI found: name it with --comfyui PATH, or a folder for the files with --to FOLDER")
    return home.folders, home.user / RECORD


def fetch_file(file: HubFile, folders: list[Path], record: Path, accept: bool) -> Path:
    """The file in the first of the folders, or where it is already; says on stderr what it does.

    accept: its licence, which is written to `record`. Raises LicenceError where it was not accepted, and FetchError.
    """
    here = dict(model_files(folders))
    name = local_name(file, here)
    if name is not None and not set_aside_if_damaged(here[name], _say):
        print(f"{file.name} is here already", file=sys.stderr)
        return here[name]
    licence = LICENCES[file.licence]
    check_licences([file], record, accept=accept, how="add --accept-licence")
    print(f"{file.name} from {file.page}, under {licence.name} ({licence.summary})", file=sys.stderr)
    return fetch(file, folders[0], say=_say, progress=_Bar() if sys.stderr.isatty() else None)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


class _Bar:
    """tqdm's bar, where a terminal shows it and tqdm is there (ComfyUI brings it)."""

    def __init__(self):
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar = None
        else:
            self._bar = tqdm(unit="B", unit_scale=True, unit_divisor=1000)

    def __call__(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.total = total or None
            self._bar.update(done - self._bar.n)


def _table() -> list[str]:
    width = max(len(file.name) for file in FILES)
    lines = []
    for file in FILES:
        size = f"{file.size / 1e9:5.1f} GB" if file.size else "        "
        lines.append(f"{file.name:<{width}}  {size}  {file.about}; {LICENCES[file.licence].name}")
    return lines
