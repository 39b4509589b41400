"""What to do about the core's errors on the command line."""

from __future__ import annotations

from ..errors import (
    BrokenLatentError,
    CheckpointFamilyError,
    CheckpointScheduleError,
    PiDError,
    UnclearFamilyError,
    WrongCaptionError,
)

# A remedy where an option of a command, or its file, is what can be changed.
REMEDIES: dict[type[PiDError], str] = {
    BrokenLatentError: "give another file",
    CheckpointFamilyError: "leave --family out",
    CheckpointScheduleError: "leave --schedule out",
    UnclearFamilyError: "say which with --family",
    WrongCaptionError: "give one that PiD's text encoder made",
}


def explain(error: Exception) -> str:
    """The error's line, with the remedy where there is one."""
    remedy = next((remedy for kind, remedy in REMEDIES.items() if isinstance(error, kind)), None)
    return str(error) if remedy is None else f"{error}: {remedy}"
