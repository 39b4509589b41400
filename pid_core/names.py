"""Names of files that this system takes."""

from __future__ import annotations

import os
import re

from .printable import printable, quoted

WINDOWS = os.name == "nt"
LONGEST_NAME = 200  # bytes of one part of a path; file systems take 255, and a number and an ending are added
FOREIGN = r'<>:"|?*'  # what Windows takes in no name; behind a colon it would write into the side of another file
_FOREIGN = re.compile(f"[{re.escape(FOREIGN)}]")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *(\..*)?", re.IGNORECASE)


def check_part(part: str, what: str) -> None:
    """Raise ValueError in one line for one part of a path that Windows does not take, where this is Windows.

    what: how the user calls the whole, with its value.
    """
    if not WINDOWS:
        return
    if found := _FOREIGN.search(part):
        raise ValueError(f"{what} holds {found[0]}, which Windows takes in no file name: leave it out")
    if _DEVICE.fullmatch(part):
        raise ValueError(f"{what} has the part {printable(part)}, which Windows keeps for a device: choose another")


def check_prefix(prefix: str) -> None:
    """Raise ValueError in one line for the beginning of a file's path that no file system takes, or not this one.

    Parts are separated by slashes of either kind. Nothing is said of where the path leads.
    """
    if not prefix.isprintable():
        raise ValueError(f"filename_prefix {quoted(prefix)} holds what no file name can: type it again there")
    parts = re.split(r"[/\\]", prefix)
    if len(max(parts, key=len).encode()) > LONGEST_NAME or len(prefix) > 10 * LONGEST_NAME:
        raise ValueError(
            f"filename_prefix is too long, {printable(prefix, 40)}: a name can have {LONGEST_NAME} letters at most"
        )
    drive = bool(re.fullmatch("[A-Za-z]:", parts[0]))  # of a whole path into the output folder
    for part in parts[drive:]:
        check_part(part, f"filename_prefix {quoted(prefix)}")
