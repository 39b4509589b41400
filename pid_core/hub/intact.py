"""Whether a model file can be what its name says, told from its first bytes and its length: no weight is read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from ..printable import printable

SAFETENSORS, PICKLES = (".safetensors", ".sft"), (".pth", ".pt")
BEGINNING = 16  # bytes that `wrong_beginning` wants
LARGEST_HEADER = 100_000_000  # bytes; what the safetensors library itself allows


def wrong_beginning(name: str, beginning: bytes, size: int | None = None) -> str | None:
    """What is wrong with a file's first bytes, in a few words; None where they fit its name.

    size: of the whole file in bytes, where it is known. Nothing is known of names with other endings.
    """
    ending = Path(name).suffix.lower()
    shown = printable(beginning[:12].decode("latin-1"))
    if ending in SAFETENSORS:
        header = int.from_bytes(beginning[:8], "little")
        most = LARGEST_HEADER if size is None else min(LARGEST_HEADER, size - 8)
        if len(beginning) < 10 or not 2 <= header <= most or beginning[8:9] != b"{":
            return f"it begins with {shown!r}, which no safetensors file does"
    elif ending in PICKLES and not beginning.startswith(b"PK\x03\x04"):
        return f"it begins with {shown!r}, which no file of PyTorch's does"
    return None


def damage(path: Path) -> str | None:
    """Why a file cannot be read, in a few words; None where beginning and length fit. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
        wrong = wrong_beginning(path.name, beginning, size)
        if wrong or path.suffix.lower() not in SAFETENSORS:
            # PyTorch's archive ends with its table of contents: one that was cut short has none
            cut = path.suffix.lower() in PICKLES and not wrong and not zipfile.is_zipfile(path)
            return "it was cut short" if cut else wrong
        length = int.from_bytes(beginning[:8], "little")
        file.seek(8)
        try:
            entries = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
            promised = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return "its header cannot be read"
    return None if promised == size else f"it has {size:,} bytes and should have {printable(f'{promised:,}')}"
