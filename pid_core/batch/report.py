"""The report of a run, in the output folder's `_pidkit/`: one line per job, and what was begun and never ended.

The last line of an output counts: with other settings, or after a failure, it is written once more under the same name.
Lines are added as jobs end, so whatever dies, nothing that was done is forgotten. `report*.jsonl` has a file for each
shard; `begun*.jsonl` beside it names each job before it is touched, so that one that kills its worker is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..files import move
from ..printable import printable
from .results import GOOD, KEPT, SKIPPED, STAGES, Result, RunStoppedError, stops_the_run

FOLDER = "_pidkit"
PARQUET_FROM = 100_000  # lines
TIDY_AFTER = 100_000  # lines of what was begun

# What is known of a key from earlier lines. REPLACED: later ones are of the same output with another key.
NOTHING, GOOD_BEFORE, BAD_BEFORE, PASSING_BEFORE, REPLACED = 0, 1, 2, 3, 4


class Report:
    """One shard's report, open for adding. Nobody else adds to it meanwhile.

    Of millions of earlier lines it keeps nine bytes each. Raises ValueError where another run has it open, or it
    cannot be written.
    """

    def __init__(self, out: str | Path, shard: str = ""):
        self.folder = Path(out, FOLDER)
        self.path = self.folder / f"report{shard}.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+", buffering=0)
            self._lock = _lock(self._file, self.path)  # before anything is taken off
            _trim(self._file)
            self._begun = _opened(self.folder / f"begun{shard}.jsonl")
        except OSError as error:
            what = f"{printable(self.folder, 300)} cannot be written ({error.strerror})"
            raise ValueError(f"{what}: make it writable, or choose another --out") from None
        self._begun_lines = 0
        self._known = _Known(_lines(self.path))
        self._attempts: Counter[str] = Counter()
        for line in _lines(self.folder / f"begun{shard}.jsonl"):
            if self._known.of(line["key"]) == NOTHING:  # else it has ended
                self._attempts[line["key"]] += line["begun"]
        self.counts: Counter[str] = Counter()
        self._repeated = False

    def before(self, key: str) -> int:
        """What an earlier run wrote of this key: one of the five above."""
        return self._known.of(key)

    def attempts(self, key: str) -> int:
        """How often the job was begun and nobody heard of it again."""
        return self._attempts[key]

    def begin(self, key: str) -> None:
        """To be called before a job is touched."""
        self._attempts[key] += 1
        _add(self._begun, {"key": key, "begun": 1})
        self._begun_lines += 1
        if self._begun_lines >= TIDY_AFTER:
            self._tidy()

    def drop(self, key: str) -> None:
        """The job was begun and is as it was."""
        self._attempts[key] -= 1
        _add(self._begun, {"key": key, "begun": -1})

    def end(self, result: Result) -> None:
        """Add the job's line, but for one that an earlier run has already called good and that is so still."""
        self._attempts.pop(result.key, None)
        self.counts[result.status] += 1
        before = self.before(result.key)
        if result.status == SKIPPED or (before == GOOD_BEFORE and result.status == KEPT):
            return
        self._repeated = self._repeated or before != NOTHING
        _add(self._file, result.as_json())

    def close(self, finished: bool) -> None:
        """finished: all jobs have ended, so that nothing that was begun needs to be remembered."""
        if self._repeated and not finished:
            self._tidy()  # else what has ended, and has no line any more, would count as an attempt
        self._begun.close()
        self._file.close()
        if self._repeated:
            _keep_last(self.path)
        if finished:
            Path(self._begun.name).unlink(missing_ok=True)
            _as_parquet(self.path)
        self._lock.close()

    def _tidy(self) -> None:
        """Leave only those that have not ended."""
        path = Path(self._begun.name)
        part = path.with_suffix(".part")
        with part.open("wb", buffering=0) as file:
            for key, count in self._attempts.items():
                if count > 0:
                    _add(file, {"key": key, "begun": count})
        self._begun.close()
        move(part, path)
        self._begun, self._begun_lines = _opened(path), 0

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self._begun.close()
        self._file.close()
        self._lock.close()


class _Known:
    """Keys and how they went, as two sorted arrays."""

    def __init__(self, lines: Iterable[dict[str, Any]]):
        kinds = [("key", np.uint64), ("place", np.uint64), ("how", np.uint8)]
        found = np.fromiter(((_short(line["key"]), _place(line), _how(line)) for line in lines), kinds)
        found["how"][~_are_last(found["place"])] = REPLACED
        order = np.argsort(found["key"], kind="stable")
        self._keys, self._how = found["key"][order], found["how"][order]

    def of(self, key: str) -> int:
        last = int(np.searchsorted(self._keys, _short(key), side="right")) - 1  # of equal ones
        if last < 0 or self._keys[last] != _short(key):
            return NOTHING
        return int(self._how[last])


def _short(key: str) -> np.uint64:
    return np.uint64(int(hashlib.sha256(key.encode()).hexdigest()[:16], 16))


def _place(line: dict[str, Any]) -> np.uint64:
    """What is the same for all lines of one output."""
    return _short(line.get("name") or line["key"])


def _how(line: dict[str, Any]) -> int:
    if line["status"] in GOOD:
        return GOOD_BEFORE
    return PASSING_BEFORE if line.get("passing") else BAD_BEFORE


def _are_last(places: np.ndarray) -> np.ndarray:
    """Which of them do not come again."""
    _, from_the_end = np.unique(places[::-1], return_index=True)
    last = np.zeros(len(places), np.bool_)
    last[len(places) - 1 - from_the_end] = True
    return last


def summary(out: str | Path) -> dict[str, Any]:
    """All shards' reports in numbers: rows by status, seconds by stage, and the first errors of each kind.

    Raises ValueError where there is none.
    """
    folder = Path(out, FOLDER)
    paths = sorted(folder.glob("report*.jsonl"))
    if not paths:
        raise ValueError(f"{printable(out)} holds no report of a batch ({FOLDER}/report.jsonl)")
    counts: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    errors: dict[str, int] = {}
    for line in last_lines(paths):
        counts[line["status"]] += 1
        seconds.update({stage: float(line.get("seconds", {}).get(stage, 0.0)) for stage in STAGES})
        if line["status"] not in GOOD and len(errors) < 1000:
            reason = line.get("error", line["status"])
            errors[reason] = errors.get(reason, 0) + 1
    first = sorted(errors.items(), key=lambda item: -item[1])[:10]
    return {"rows": dict(counts), "seconds": {k: round(v, 3) for k, v in seconds.items()}, "errors": dict(first)}


def last_lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The last line of each output, in whichever of the files; the file that was written last is asked last."""
    paths = sorted(paths, key=lambda path: path.stat().st_mtime_ns)
    places = [np.fromiter(map(_place, _lines(path)), np.uint64) for path in paths]
    wanted = _are_last(np.concatenate([np.empty(0, np.uint64), *places]))
    for path, here in zip(paths, np.split(wanted, np.cumsum([len(part) for part in places])[:-1]), strict=False):
        yield from (line for line, last in zip(_lines(path), here, strict=False) if last)


def failed_keys(out: str | Path) -> set[str]:
    """Keys of the jobs that failed or crashed, of all shards."""
    paths = sorted(Path(out, FOLDER).glob("report*.jsonl"))
    return {line["key"] for line in last_lines(paths) if line["status"] not in GOOD}


def _opened(path: Path) -> io.FileIO:
    """Open for adding; what a death left of half a line is taken off."""
    file = path.open("ab+", buffering=0)
    _trim(file)
    return file


def _trim(file: io.FileIO) -> None:
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(max(0, end - 2**20))
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            file.truncate(end - len(tail) + whole)
    file.seek(0, os.SEEK_END)


def _lock(file: io.FileIO, path: Path) -> io.FileIO:
    """Keep other runs out until the file that is returned is closed. Raises ValueError where one is there already."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # beside it: what is locked can be read there by nobody, this process included
            file = path.with_suffix(".lock").open("ab", buffering=0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise ValueError(f"another run is writing {printable(path)}: wait for it, or choose another --out") from None
    except OSError:  # a file system without locks
        pass
    return file


def _add(file: io.FileIO, line: dict[str, Any]) -> None:
    rest = json.dumps(line, ensure_ascii=False, default=str).encode(errors="backslashreplace") + b"\n"
    try:
        while rest:  # a disk that gets full takes a part
            rest = rest[file.write(rest) :]
    except OSError as error:
        if not stops_the_run(error):
            raise
        raise RunStoppedError(f"{printable(file.name)}: {error.strerror}") from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and "key" in entry:
                    yield entry


def _keep_last(path: Path) -> None:
    part = path.with_suffix(".part")
    with part.open("wb", buffering=0) as file:
        for line in last_lines([path]):
            _add(file, line)
    move(part, path)


def _as_parquet(path: Path) -> None:
    """Beside it as parquet where it is long and pyarrow is there."""
    count = sum(1 for _ in _lines(path))
    if count < PARQUET_FROM:
        return
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        return
    names = ("id", "index", "sigma", "status", "key", "output", "error", "attempts", "memory", "sha256")
    part = path.with_suffix(".part")
    writer = None
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        nonlocal writer
        table = arrow.Table.from_pylist(rows)
        writer = writer or parquet.ParquetWriter(part, table.schema)
        writer.write_table(table.cast(writer.schema))
        rows.clear()

    for line in _lines(path):
        row = {name: line.get(name) for name in names if name not in ("index", "attempts", "memory")}
        row |= {name: int(line.get(name) or 0) for name in ("index", "attempts", "memory")}
        row |= {f"seconds_{stage}": float(line.get("seconds", {}).get(stage, 0.0)) for stage in STAGES}
        row = {name: "" if value is None else value for name, value in row.items()}
        rows.append(row | {"columns": json.dumps(line.get("columns", {}), default=str)})
        if len(rows) == PARQUET_FROM:
            flush()
    if rows:
        flush()
    if writer is not None:
        writer.close()
    move(part, path.with_suffix(".parquet"))
