"""Short names for the content of tensors, and of large files without reading all of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from ..entries import LARGEST as LARGEST_HEADER
from ..entries import MOST_TENSORS
from ..printable import printable

if TYPE_CHECKING:  # batch --dry-run does without PyTorch, which takes half a gigabyte
    from torch import Tensor

SAMPLE = 4096
BLOCKS = 256

_known: dict[tuple, str] = {}


def fingerprint(path: str | Path) -> str:
    """32 hex digits: the same for every copy of a file, another one for other weights.

    Hashed are the size, and of a safetensors file its header and the first 4 KB of every tensor, of any other file 256
    evenly spread blocks of 4 KB: about 1 MB of 5 GB. A copy elsewhere or under another name has the same fingerprint,
    which a file's name and date would not give. It tells files apart; it does not prove that one is undamaged.
    Raises OSError.
    """
    path = Path(path)
    stat = path.stat()
    if not S_ISREG(stat.st_mode):
        raise OSError(f"{printable(path.name)} is no file")
    key = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
    if key not in _known:
        with path.open("rb") as file:
            digest = hashlib.sha256(str(stat.st_size).encode())
            for start in _sample_starts(file, stat.st_size, digest):
                file.seek(start)
                digest.update(file.read(SAMPLE))
        _known[key] = digest.hexdigest()[:32]
    return _known[key]


def digest(tensor: Tensor) -> str:
    """32 hexadecimal digits for a tensor's shape and values."""
    values = tensor.detach().float().cpu().contiguous().numpy()
    found = hashlib.blake2b(repr(values.shape).encode(), digest_size=16)
    found.update(values.data)
    return found.hexdigest()


def _sample_starts(file, size: int, digest) -> list[int]:
    length = int.from_bytes(file.read(8), "little")
    if 8 + length <= size and length <= LARGEST_HEADER:
        header = file.read(length)
        try:
            entries = json.loads(header)
            starts = sorted(8 + length + e["data_offsets"][0] for k, e in entries.items() if k != "__metadata__")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            starts = []
        if 0 < len(starts) <= MOST_TENSORS and all(type(start) is int and 0 <= start <= size for start in starts):
            digest.update(header)
            return starts
    return sorted({block * max(size - SAMPLE, 0) // (BLOCKS - 1) for block in range(BLOCKS)})
