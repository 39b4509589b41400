"""What keeps names of people, machines, folders and files out of a report.

A report is put together from figures and from words of this pack alone; the messages of errors are the one thing in it
that comes from elsewhere, and go through `Scrub`.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from ..assets import NANO_PATH
from ..errors import one_line
from ..hub.catalogue import known_file
from ..model.config import PiDConfig

LONGEST = 240  # characters of an error
# an address with a scheme is no path; the last part goes too
_BEGIN = r"(?:[A-Za-z]:[/\\]|~?[/\\]|\.{1,2}[/\\])"
# in quotation marks a path may have spaces and commas, and ends with them
_PATHS = re.compile(rf"(?<=['\"]){_BEGIN}[^'\"]*(?=['\"])|(?<![\w/]){_BEGIN}[^\s'\"<>|:;,)]*")


class Scrub:
    """Takes paths, and every one of some words, out of a text. paths: those that a run was given."""

    def __init__(self, paths: Iterable[Path | None] = ()):
        words: set[str] = set()
        for path in filter(None, paths):
            whole = Path(os.path.expanduser(path)).absolute()
            words |= {str(path), str(whole), whole.name, whole.stem, *whole.parts[1:-1]}
        home = Path(os.path.expanduser("~"))
        words |= {str(home), home.name, *_names()}
        common = {"home", "models", "tmp", "Users", "ComfyUI", "root", "data", "mnt", "media", "opt", "usr"}
        self._words = sorted((word for word in words if len(word) > 2 and word not in common), key=len, reverse=True)

    def __call__(self, text: object) -> str:
        """One line."""
        line = one_line(text)
        for word in self._words:
            line = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "...", line, flags=re.IGNORECASE)
        return _PATHS.sub("...", line)[:LONGEST]


def _names() -> set[str]:
    """Of who is logged in, and of this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, ImportError, OSError):
        user = ""
    return {user, socket.gethostname(), socket.gethostname().split(".")[0]}


def public_name(path: Path, config: PiDConfig) -> str:
    """What a checkpoint is called in a report: by its name where it is a file that everybody can fetch."""
    if Path(path).absolute() == NANO_PATH.absolute():
        return "pid_nano (bundled)"
    file = known_file(str(Path(*Path(path).absolute().parts[-2:])))
    if file is not None and file.folder == "diffusion_models":
        return file.name
    return f"another file, {config.version}{f', {config.family}' if config.family else ''}"
