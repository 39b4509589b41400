"""Which version of the pack this is, and the oldest that it runs with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OLDEST = {"python": (3, 10), "torch": (2, 5)}


def pack_version() -> str:
    """As in pyproject.toml, or as it was installed; "unknown" where the package was copied without either."""
    try:
        text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        try:
            return version("pidkit")
        except PackageNotFoundError:
            return "unknown"
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return found[1] if found else "unknown"


def too_old(name: str, found: str) -> str | None:
    """In words, the oldest version of `name` (see OLDEST) where `found` is older; None where it is not."""
    oldest = OLDEST.get(name, ())
    numbers = tuple(int(number) for number in re.findall(r"\d+", found)[: len(oldest)])
    return ".".join(map(str, oldest)) if numbers < oldest else None
