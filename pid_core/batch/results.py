"""What became of a job, and what ends a run."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import prints_bare
from ..printable import printable
from .jobs import Job, sigma_text

DONE, KEPT, FAILED, CRASHED, SKIPPED = "done", "kept", "failed", "crashed", "skipped"
GOOD = (DONE, KEPT)
STAGES = ("read", "encode", "decode", "write")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
LONGEST_ERROR = 500


@prints_bare
class EngineError(Exception):
    """What is not the fault of the row in hand."""


@prints_bare
class RunStoppedError(EngineError):
    """What no other row will survive either: no room on the disk, a model that cannot be loaded."""


@prints_bare
class InTheWayError(ValueError):
    """What lies where the output goes."""


@dataclass(frozen=True)
class Result:
    """One line of the report. name: the job's, of the output, whether or not it was made. output: its path once it is.

    seconds: by stage. memory: bytes at the fullest moment, where that is known.
    passing: it failed of what may be gone by the next run, which tries it again.
    columns: those of the manifest that nothing here knows.
    """

    id: str
    index: int
    sigma: str
    status: str
    key: str
    name: str = ""
    output: str | None = None
    error: str | None = None
    attempts: int = 1
    seconds: Mapping[str, float] = field(default_factory=dict)
    memory: int | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    passing: bool | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """As the job's."""
        return f"{self.index}:{self.sigma}"

    def as_json(self) -> dict[str, Any]:
        """Without what is empty."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {}, (), "")}


def result_of(job: Job, status: str, **more: Any) -> Result:
    """The result of a job."""
    if more.get("error") is not None:
        more["error"] = printable(more["error"], LONGEST_ERROR)
    row, sigma = job.row, sigma_text(job.sigma)
    return Result(row.id, row.index, sigma, status, job.key, job.name, columns=dict(row.extra), **more)


def stops_the_run(error: OSError) -> bool:
    """Whether every other output would fail as well: there is no room, or nothing can be written."""
    return error.errno in FULL
