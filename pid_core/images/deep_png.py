"""PNG of 16 bits a channel, which Pillow does not write.

Source: the PNG specification (W3C), chunks 11.2 and 11.3.3, filter type 2 (Up).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

LEVEL = 4  # of zlib's


def deep_png(values: np.ndarray, texts: Mapping[str, str]) -> bytes:
    """values: [H, W, 3 or 4] uint16. texts: ASCII key words and texts of the file's metadata."""
    height, width, channels = values.shape
    rows = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]  # bytes wrap around, as the filter has it
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header)]
    chunks += [(b"tEXt", f"{word}\0{text}".encode("latin-1")) for word, text in texts.items()]
    chunks += [(b"IDAT", zlib.compress(filtered.data, LEVEL)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
