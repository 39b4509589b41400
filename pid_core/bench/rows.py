"""A row of the report: what was measured, in words and in figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Value = str | int | float | bool | None
MEASURED, SKIPPED, NO_MEMORY, FAILED = "measured", "not measured", "out of memory", "failed"


@dataclass(frozen=True)
class Row:
    """part: which of the bench's parts it is of. title, text: for people. values: for JSON; seconds, bytes, dB.

    status: one of MEASURED, SKIPPED, NO_MEMORY and FAILED; text then says why.
    """

    part: str
    title: str
    text: str
    status: str = MEASURED
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A row that is to be measured. seconds: about how long it takes, None where nobody knows."""

    key: str
    title: str
    run: Callable[[], Row]
    seconds: float | None = None


def in_steps(steps: int) -> str:
    """The number in words' company."""
    return f"{steps} step" if steps == 1 else f"{steps} steps"
