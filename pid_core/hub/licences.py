"""Licences of the weights: what they say in a line, and a record of the ones a user has accepted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ..errors import prints_bare
from ..files import replace_file
from .catalogue import HubFile


@dataclass(frozen=True)
class Licence:
    """A licence as a user is shown it before he accepts it."""

    name: str
    summary: str
    page: str
    ask: bool = True  # has terms of use that a user must accept first


LICENCES = {
    "NSCLv1": Licence(
        "NVIDIA's licence NSCLv1",
        "non-commercial use only, of the weights and of what they draw",
        "https://huggingface.co/nvidia/PiD",
    ),
    "Gemma": Licence("Google's Gemma terms of use", "some uses are prohibited", "https://ai.google.dev/gemma/terms"),
    "Stability": Licence(
        "the Stability AI Community Licence",
        "free up to a yearly revenue, with registration for commercial use",
        "https://stability.ai/license",
    ),
    "Apache-2.0": Licence(
        "Apache-2.0", "free use with notice", "https://www.apache.org/licenses/LICENSE-2.0", ask=False
    ),
    "MIT": Licence("MIT", "free use with notice", "https://opensource.org/license/mit", ask=False),
}


@prints_bare
class LicenceError(ValueError):
    """The user has not accepted a licence yet; the message says what it is and how to."""


def check_licences(files: Sequence[HubFile], record: Path, *, accept: bool, how: str) -> None:
    """Return where the licences of all files are free, accepted before, or accepted now, which is written to `record`.

    how: how to accept them here, for the message of the LicenceError raised otherwise, which names all files.
    """
    licences = _unanswered(files, record)
    if not licences:
        return
    if not accept:
        raise LicenceError(_question(files, licences, how))
    entries = accepted(record)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for key in sorted(licences):
        names = ", ".join(file.name for file in files if file.licence == key)
        entries |= {key: {"accepted": now, "for": names, "page": LICENCES[key].page}}
    replace_file(record, json.dumps(entries, indent=1).encode())


def licence_question(files: Sequence[HubFile], record: Path, *, how: str) -> str | None:
    """The line of `check_licences` where it would ask, else None; it writes nothing."""
    licences = _unanswered(files, record)
    return _question(files, licences, how) if licences else None


def _unanswered(files: Sequence[HubFile], record: Path) -> set[str]:
    return {file.licence for file in files if LICENCES[file.licence].ask} - accepted(record).keys()


def _question(files: Sequence[HubFile], licences: set[str], how: str) -> str:
    missing = "; ".join(map(_describe, files))
    count = f"{len(files)} files are missing: " if len(files) > 1 else "missing: "
    terms = "; ".join(f"{one.name}: {one.summary}, {one.page}" for one in (LICENCES[key] for key in sorted(licences)))
    return f"{count}{missing}. {terms}; if you accept {'them' if len(licences) > 1 else 'it'}, {how}"


def _describe(file: HubFile) -> str:
    size = "" if file.size is None else f"{file.size / 1e9:.1f} GB, "
    return f"{file.name} ({size}{file.repo})"


def accepted(record: Path) -> dict[str, dict]:
    """Licences accepted so far; a record that cannot be read counts as empty."""
    with contextlib.suppress(OSError, ValueError):
        entries = json.loads(Path(record).read_text(encoding="utf-8"))
        if isinstance(entries, dict):
            return entries
    return {}
