"""Prints what CHANGELOG.md says of the version in pyproject.toml, for the registry and the release page.

Run as `python scripts/release_notes.py`. Exit code 1 where the version has no section, or an empty one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version(pyproject: str) -> str:
    """The one place that says it; pid_core reads the same line."""
    return re.search(r'^version = "([^"]+)"', pyproject, re.MULTILINE)[1]


def section(changelog: str, name: str) -> str:
    """What stands under `## [name]`, without the links at the end. Raises ValueError where nothing does."""
    parts = re.split(r"^## \[([^\]]+)\].*$", changelog, flags=re.MULTILINE)
    text = dict(zip(parts[1::2], parts[2::2], strict=True)).get(name, "")
    text = re.sub(r"^\[[^\]]+\]: .*$", "", text, flags=re.MULTILINE).strip()
    if not text:
        raise ValueError(f"CHANGELOG.md says nothing under ## [{name}]: write what users get")
    return text


def main() -> int:
    try:
        name = version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        print(section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), name))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
