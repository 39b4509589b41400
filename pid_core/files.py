"""Files written so that nobody ever sees a half one."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from .names import WINDOWS

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.5, 0.75)  # seconds


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in place in one move: readers see the old one or the new one, never a part."""
    path = Path(path)
    with _written_beside(path, content) as part:
        move(part, path)


def write_new(folder: Path, name: str, ending: str, content: bytes) -> Path:
    """Write `folder/name_00001_ending`, or with the next number that is free, and return its path.

    No file that is there, or that another process writes at the same time, is ever replaced.
    """
    folder = Path(folder)
    with _written_beside(folder / f"{name}{ending}", content) as part:
        numbers = itertools.count(_highest(folder, name) + 1)
        paths = (folder / f"{name}_{number:05}_{ending}" for number in numbers)
        return next(path for path in paths if _put_new(part, path))


def move(part: Path, path: Path) -> None:
    """Put a file in its place, or in another's, in one move. Raises OSError.

    On Windows a scanner or an indexer may hold either open for a moment: it is then tried again, for two seconds.
    """
    for pause in PAUSES if WINDOWS else ():
        try:
            os.replace(part, path)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(part, path)


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_bytes(content)
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _highest(folder: Path, name: str) -> int:
    """The highest number behind this name in the folder."""
    numbered = re.compile(re.escape(name) + r"_([0-9]{5,9})_.*", re.IGNORECASE)
    found = (numbered.fullmatch(entry) for entry in os.listdir(folder))
    return max((int(match[1]) for match in found if match), default=0)


def _put_new(part: Path, path: Path) -> bool:
    """Give a file its name; False where the name is taken."""
    try:
        os.link(part, path)  # unlike a rename, never replaces what came there meanwhile
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            path.open("xb").close()
        except FileExistsError:
            return False
        move(part, path)
    return True
