"""What a run is going to do, found before anything is drawn."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .jobs import Job, Options, jobs_of, with_key
from .rows import read_rows
from .shards import Shard


@dataclass(frozen=True)
class Survey:
    """jobs: of this shard. rows: of the whole manifest. broken: jobs that are seen to fail, and why the first does."""

    rows: int
    jobs: int
    broken: int
    why: str | None = None


def jobs_in(source: str, options: Options, shard: Shard, limit: int | None = None) -> Iterator[Job]:
    """The shard's jobs in the manifest's order. limit: of the manifest's first rows only."""
    for row in read_rows(source, options.out):
        if limit is not None and row.index >= limit:
            return
        if shard.has(row.index):
            yield from (with_key(job, options) for job in jobs_of(row, options))


def survey(source: str, options: Options, shard: Shard, limit: int | None = None) -> Survey:
    """Read all rows once; of millions, eight bytes each are kept. Two jobs with one output are a ValueError."""
    names, rows, jobs, broken, why = array("q"), 0, 0, 0, None
    for row in read_rows(source, options.out):
        if limit is not None and row.index >= limit:
            break
        rows += 1
        mine = shard.has(row.index)
        for job in jobs_of(row, options):
            jobs += mine
            if mine and job.error is not None:
                broken, why = broken + 1, why or job.error
            if job.path:
                names.append(hash(_folded(job)))
    twice = _twice(names)
    if twice:
        _raise_twice(source, options, twice)
    return Survey(rows, jobs, broken, why)


def _folded(job: Job) -> str:
    return job.path.casefold()  # some file systems take Cat.png and cat.png for one


def _twice(names: array) -> set[int]:
    found = np.sort(np.frombuffer(names, dtype=np.int64)) if names else np.empty(0, np.int64)
    return set(found[1:][found[1:] == found[:-1]].tolist())


def _raise_twice(source: str, options: Options, hashes: set[int]) -> None:
    seen: dict[str, int] = {}
    for job in jobs_in(source, options, Shard()):
        name = _folded(job)
        if job.path and hash(name) in hashes:
            if name in seen:
                raise ValueError(
                    f"rows {seen[name]} and {job.row.index} would both write {job.path}: give them other names, in "
                    "column output or with --name"
                )
            seen[name] = job.row.index
