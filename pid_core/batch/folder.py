"""A folder worked through over many runs: its pictures, what each result is called, and which results are there.

No list is kept: a picture is done when its result exists. So nothing can be out of date after a crash, and who deletes
a result gets it made again.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path, PurePath
from typing import NamedTuple

from ..names import FOREIGN, LONGEST_NAME
from ..printable import printable, quoted
from .rows import PICTURES, read_rows

RESULTS = (*PICTURES, ".avif", ".exr", ".jxl")
COUNTED = re.compile(r"_[0-9]{5,}_$")  # what ComfyUI adds behind a name
NUMBERED = re.compile(r"_[0-9]+$")  # and what other savers do
# Of placeholders, of ways out of a folder, and what Windows does not take: savers change or refuse them.
UNFIT = re.compile(rf"[%\\{re.escape(FOREIGN)}]|\.\.")
TAIL = 64  # bytes at the end of a file that are looked at


class Entry(NamedTuple):
    """A picture, and the name of its result without number and ending; folders below the one in hand stand before it,
    with slashes."""

    path: Path
    name: str


def entries_in(folder: Path, pattern: str = "*", results: Path | None = None) -> list[Entry]:
    """The pictures of a folder that fit a pattern, sorted by name; ** in it stands for any folders below.

    Hidden files are left out, and what lies in `results`. Raises ValueError in one line where there is none.
    """
    pattern = pattern.strip() or "*"
    parts = PurePath(pattern).parts
    if "\0" in pattern or ".." in parts or os.path.isabs(pattern) or "://" in pattern:
        raise ValueError(f"pattern is {quoted(pattern)}, which leads out of the folder: take one such as *.jpg or **/*")
    folder = Path(folder)
    try:
        rows = list(read_rows(f"{glob.escape(str(folder))}/{pattern}"))
    except (ValueError, re.error):
        rows = []
    found = dict.fromkeys(Path(row.source) for row in rows)  # several ** find a file several times
    paths = [path for path in found if path.suffix.lower() in PICTURES and _is_open(path, folder)]
    if not paths:
        fits = "" if pattern in ("*", "**/*") else f" whose name fits {printable(pattern)}"
        raise ValueError(f"there is no picture ({', '.join(PICTURES)}) in {printable(folder)}{fits}")
    open_ones = _places({path.parent for path in paths}, results)
    paths = [path for path in paths if path.parent in open_ones]
    if not paths:
        raise ValueError(f"the pictures in {printable(folder)} lie where results go: choose another output folder")
    return [Entry(path, name) for path, name in zip(paths, _names(paths, folder), strict=True)]


def finished(results: Path, names: Iterable[str]) -> set[str]:
    """Those of the names that have a whole result in the folder: NAME.png, or with a number, NAME_00001_.png."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    done: set[str] = set()
    for below, here in folders.items():
        known = {_same(name.rpartition("/")[2]): name for name in here}
        found = (_named(stem, known) for stem in _stems(Path(results) / below))
        done |= {known[name] for name in found if name in known}
    return done


def _named(stem: str, known: Collection[str]) -> str:
    """The name that a result's file was given. cat_1 is that of cat_1 where there is such a picture, else of cat."""
    if COUNTED.search(stem):
        return COUNTED.sub("", stem)
    return stem if stem in known else NUMBERED.sub("", stem)


def _places(folders: set[Path], results: Path | None) -> set[Path]:
    """Those that do not lie among the results, each once: links lead to one folder by several ways, or round."""
    found: dict[Path, Path] = {}
    for folder in sorted(folders, key=lambda one: len(one.parts)):
        found.setdefault(folder.resolve(), folder)
    inside = None if results is None else Path(results).resolve()
    return {folder for real, folder in found.items() if inside is None or not real.is_relative_to(inside)}


def _is_open(path: Path, folder: Path) -> bool:
    """Whether it lies in the folder, and neither it nor a folder on the way is hidden."""
    return path.is_relative_to(folder) and not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _names(paths: list[Path], folder: Path) -> list[str]:
    """One for each. Pictures that differ in their ending only keep it in the name."""
    places = [path.relative_to(folder) for path in paths]
    names = [_fit(place.with_suffix("")) for place in places]
    count = Counter(map(_same, names))
    names = [_fit(place) if count[_same(name)] > 1 else name for name, place in zip(names, places, strict=True)]
    count = Counter(map(_same, names))
    return [
        f"{name}_{_mark(place)}" if count[_same(name)] > 1 else name for name, place in zip(names, places, strict=True)
    ]


def _fit(place: PurePath) -> str:
    """As it is, where it can be the name of a result; else without what cannot, and a mark that keeps it unique."""
    return "/".join(map(_fit_part, place.parts))


def _fit_part(part: str) -> str:
    fit = UNFIT.sub("_", "".join(letter if letter.isprintable() else "_" for letter in part))
    while len(fit.encode()) > LONGEST_NAME - 10:  # room for the mark
        fit = fit[:-1]
    return fit if fit == part else f"{fit}_{_mark(part)}"


def _mark(text: object) -> str:
    return hashlib.sha256(os.fsencode(str(text))).hexdigest()[:8]


def _same(name: str) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _stems(folder: Path) -> set[str]:
    """The names, without ending, of what is whole in a folder."""
    found: set[str] = set()
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return found
    for entry in entries:
        stem, ending = os.path.splitext(entry.name)
        if ending.lower() in RESULTS and entry.is_file():
            stat = entry.stat()
            if _is_whole(entry.path, stat.st_size, stat.st_mtime_ns):
                found.add(_same(stem))
    return found


@lru_cache(maxsize=100_000)
def _is_whole(path: str, size: int, changed: int) -> bool:
    """Whether a picture was written to its end: one that a crash or a full disk cut off is none."""
    try:
        with open(path, "rb") as file:
            start = file.read(12)
            file.seek(max(0, size - TAIL))
            end = file.read()
    except OSError:
        return False
    if start.startswith(b"\x89PNG"):
        return b"IEND" in end
    if start.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in end
    if start.startswith(b"RIFF"):
        return size >= int.from_bytes(start[4:8], "little") + 8
    return size > 0
