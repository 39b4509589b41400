"""What the scripts print, on any terminal. Standard library only."""

from __future__ import annotations

import io
import sys


def print_anything() -> None:
    """A folder's name that the terminal's code page lacks is printed as escapes, and fails nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
