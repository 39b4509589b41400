"""Rows: what is to be enlarged, from a manifest, a folder or a pattern, one after another and never all at once."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..images.files import read_about
from ..images.per_picture import parse_sigmas
from ..printable import printable, quoted

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
COLUMNS = ("image", "latent", "prompt", "caption", "degrade_sigma", "sigmas", "seed", "id", "output", "size")
AUTO = "auto"  # a sigma: what the picture's own noise and blur suggest
PARQUET_ROWS = 1000  # read at once
DEEPEST = 50  # lists and objects within each other; what is read is sent to workers and written again


@dataclass(frozen=True)
class Row:
    """One row. Columns that it leaves empty are None, and the run's options hold.

    index: its place in the manifest, from 0. source: a picture's path or address, a latent's with `is_latent`, as it is
    to be opened. id: the column's, else the source as the manifest writes it. text: the caption to encode. caption: a
    caption's file. sigmas: numbers 0 to 1, or AUTO. output: name within the output folder, with or without an ending.
    size: "2K", "4K" or a factor. extra: columns that nothing here knows. error: why the row cannot be done, in a line.
    """

    index: int
    source: str
    id: str
    is_latent: bool = False
    text: str | None = None
    caption: str | None = None
    sigmas: tuple[float | str, ...] = ()
    seed: int | None = None
    output: str | None = None
    size: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


def read_rows(source: str, out: str | None = None) -> Iterator[Row]:
    """The rows of a manifest (.jsonl, .csv or .parquet, also at an address), a folder or a pattern with * or ?.

    A row that cannot be read is one with an `error`. out: what an earlier run wrote there is no picture of a folder or
    a pattern. Raises ValueError in one line where there is nothing to read.
    """
    base = _base(source)
    return (row_of(index, entry, base) for index, entry in enumerate(_entries(source, out)))


def row_of(index: int, entry: Mapping[str, Any] | str, base: str) -> Row:
    """A manifest's entry as a row. entry: its columns; a text is an error. base: where its relative paths begin."""
    if isinstance(entry, str):
        return Row(index, "", str(index), error=entry)
    given = {name: value for name, value in entry.items() if value not in (None, "") and not _is_nan(value)}
    try:
        return _row(index, given, base)
    except ValueError as error:
        source = given.get("image", given.get("latent", ""))
        return Row(index, printable(source, 500), str(given.get("id", source or index)), error=str(error))


def _row(index: int, given: Mapping[str, Any], base: str) -> Row:
    sources = [name for name in ("image", "latent") if name in given]
    if len(sources) != 1:
        what = "both image and latent" if sources else "neither image nor latent"
        raise ValueError(f"row {index} has {what}: one is needed")
    written = _text(given, sources[0]) or ""
    return Row(
        index,
        _place(written, base),
        str(given.get("id", written)),
        is_latent=sources[0] == "latent",
        text=_text(given, "prompt"),
        caption=_place(caption, base) if (caption := _text(given, "caption")) else None,
        sigmas=_sigmas(given),
        seed=_seed(given),
        output=_text(given, "output"),
        size=str(given["size"]) if "size" in given else None,
        extra={name: value for name, value in given.items() if name not in COLUMNS},
    )


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value  # what tables write where there is nothing


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"column {name} is {quoted(value)}, a text is needed")
    return value


def _seed(given: Mapping[str, Any]) -> int | None:
    value = given.get("seed")
    try:
        seed = None if value is None else int(value)
        if isinstance(value, bool) or not (isinstance(value, str) or seed == value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"column seed is {quoted(value)}, a whole number is needed") from None
    if seed is not None and not 0 <= seed < 2**64:
        raise ValueError(f"column seed is {seed}, but must be from 0 to 2^64 - 1")
    return seed


def _sigmas(given: Mapping[str, Any]) -> tuple[float | str, ...]:
    name = "sigmas" if "sigmas" in given else "degrade_sigma"
    value = given.get(name)
    return () if value is None else check_sigmas(value, f"column {name}")


def check_sigmas(value: Any, name: str) -> tuple[float | str, ...]:
    """AUTO, or numbers 0 to 1: one, a list of them, or a text that holds them; each once. Raises ValueError."""
    found: list[float | str] = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if one == AUTO:
            found.append(AUTO)
        elif isinstance(one, str | int | float | Decimal) and not isinstance(one, bool):
            found += parse_sigmas(str(one), name)
        else:
            raise ValueError(f"{name} is {quoted(value)}; numbers from 0 to 1, or auto, are needed")
    return tuple(dict.fromkeys(found))


def _place(path: str, base: str) -> str:
    if "://" in path or os.path.isabs(path) or not base:
        return path
    return f"{base.rstrip('/')}/{path}"


def _base(source: str) -> str:
    """Where relative paths of a manifest begin; nothing for a folder or a pattern, whose paths are whole."""
    if not _is_manifest(source):
        return ""
    return source.rpartition("/")[0] if "://" in source else str(Path(source).parent)


def _is_manifest(source: str) -> bool:
    return Path(source).suffix.lower() in _READERS and not Path(source).is_dir()


def _entries(source: str, out: str | None) -> Iterator[Mapping[str, Any] | str]:
    if _is_manifest(source):
        if "://" not in source and not Path(source).is_file():
            raise ValueError(f"there is no manifest {printable(source)}")
        return _READERS[Path(source).suffix.lower()](source)
    if Path(source).is_dir():
        found = sorted(entry.path for entry in os.scandir(source) if entry.is_file() and entry.name[0] != ".")
    elif Path(source).is_file():  # also where its name could be a pattern
        if Path(source).suffix.lower() not in PICTURES:
            kinds, endings = ", ".join(_READERS), ", ".join(PICTURES)
            raise ValueError(f"{printable(source)} is neither a manifest ({kinds}) nor a picture ({endings})")
        return iter([{"image": source}])
    elif glob.has_magic(source):
        found = sorted(path for path in glob.iglob(_pattern(source), recursive=True) if os.path.isfile(path))
    else:
        kinds = ", ".join(_READERS)
        raise ValueError(f"there is no manifest ({kinds}), folder, picture or pattern {printable(source)}")
    pictures = [path for path in found if Path(path).suffix.lower() in PICTURES]
    if not pictures:
        raise ValueError(f"there is no picture ({', '.join(PICTURES)}) in {printable(source)}")
    return ({"image": path} for path in pictures if not _is_result(path, out))


def _pattern(source: str) -> str:
    """As glob takes it: a folder that is there is no pattern, whatever stands in its name."""
    parts = Path(source).parts
    folders = (Path(*parts[:count]) for count in range(len(parts) - 1, 0, -1))
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return source if folder is None else os.path.join(glob.escape(str(folder)), *parts[len(folder.parts) :])


def _is_result(path: str, out: str | None) -> bool:
    """Whether a batch wrote it there: else the second run over a folder would enlarge what the first one made."""
    if out is None or not Path(path).resolve().is_relative_to(Path(out).resolve()):
        return False
    try:
        return "key" in (read_about(Path(path)) or {})
    except OSError:
        return False


def open_source(path: str, mode: str = "rb"):
    """A file on this machine, or at an address of a kind that fsspec knows. Raises OSError, or ValueError."""
    if "://" not in path:
        return open(path, mode)
    try:
        import fsspec
    except ImportError:
        raise ValueError(f"{printable(path)} is an address: install fsspec to read it") from None
    try:
        return fsspec.open(path, mode).open()
    except (ImportError, ValueError) as error:  # a kind that needs another package, or that nobody knows
        raise ValueError(f"{printable(path)} cannot be opened: {printable(error)}") from None


def _json_lines(source: str) -> Iterator[Mapping[str, Any] | str]:
    with open_source(source) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    entry = f"line {number} is {quoted(entry)}, an object is needed"
                elif line.count(b"[") + line.count(b"{") > DEEPEST and _depth(entry) > DEEPEST:
                    entry = f"line {number} has more than {DEEPEST} lists and objects within each other"
            except (ValueError, RecursionError) as error:
                entry = f"line {number} is no JSON: {printable(error)}"
            yield entry


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _csv(source: str) -> Iterator[Mapping[str, Any] | str]:
    with open_source(source) as file:
        reader = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline=""))
        try:
            names = set(reader.fieldnames or ())
        except csv.Error as error:
            raise ValueError(f"{printable(source)} cannot be read: {printable(error)}") from None
        if not {"image", "latent"} & names:
            raise ValueError(f"{printable(source)} has no column image or latent")
        while True:
            try:
                entry = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"line {reader.line_num} cannot be read: {printable(error)}"
                continue
            surplus = entry.pop(None, None)
            yield f"line {reader.line_num} has {len(surplus)} columns too many" if surplus else entry


def _parquet(source: str) -> Iterator[Mapping[str, Any] | str]:
    try:
        import pyarrow.dataset as dataset
    except ImportError:
        raise ValueError(f"{printable(source)} needs pyarrow to be read: install it, or write .jsonl") from None
    table = dataset.dataset(source, format="parquet")
    for batch in table.to_batches(batch_size=PARQUET_ROWS):
        yield from batch.to_pylist()


_READERS: dict[str, Callable[[str], Iterator[Mapping[str, Any] | str]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
