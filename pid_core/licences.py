"""Licences of the weights: what they say in a line, and a record of the ones a user has accepted."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from .files import replace_file


@dataclass(frozen=True)
class Licence:
    name: str
    summary: str
    page: str
    ask: bool = True  # has terms of use that a user must accept first


LICENCES = {
    "NSCLv1": Licence(
        "NVIDIA's licence NSCLv1",
        "non-commercial use only (research and evaluation), of the weights and of what they draw",
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


class LicenceError(ValueError):
    """The user has not accepted a licence yet; the message says what it is and how to."""


def check_licence(key: str, record: Path, *, accept: bool, what: str, how: str) -> None:
    """Return where the licence is free, accepted before, or accepted now, which is then written to `record`.

    what: the file it is for. how: how to accept it here, for the message of the LicenceError raised otherwise.
    """
    licence = LICENCES[key]
    if not licence.ask or key in accepted(record):
        return
    if not accept:
        raise LicenceError(
            f"{what} is not here yet, and its weights carry {licence.name}: {licence.summary}. Read {licence.page}; "
            f"if you accept it, {how}"
        )
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entries = accepted(record) | {key: {"accepted": now, "for": what, "page": licence.page}}
    replace_file(record, json.dumps(entries, indent=1).encode())


def accepted(record: Path) -> dict[str, dict]:
    """Licences accepted so far; a record that cannot be read counts as empty."""
    with contextlib.suppress(OSError, ValueError):
        entries = json.loads(Path(record).read_text(encoding="utf-8"))
        if isinstance(entries, dict):
            return entries
    return {}
