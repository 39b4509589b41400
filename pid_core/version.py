"""Which version of the pack this is."""

from __future__ import annotations

import re
from pathlib import Path


def pack_version() -> str:
    """As in pyproject.toml; "unknown" where that is not beside the package."""
    try:
        text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return found[1] if found else "unknown"
