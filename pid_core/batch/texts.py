"""Captions of the rows' texts, each encoded once and kept beside the report, so that the encoder can go."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from ..captions.text import Caption, read_caption, write_caption
from ..upscale.bridge import Bridge
from .report import FOLDER


class CaptionStore:
    """The captions of a run's texts by one encoder. encoder: its fingerprint."""

    def __init__(self, out: str | Path, encoder: str):
        self.folder, self.encoder = Path(out, FOLDER, "captions"), encoder

    def __call__(self, text: str) -> Tensor:
        """[1, T, caption_width]. Raises ValueError for a file that is damaged."""
        return read_caption(self._path(text)).states

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Those that are not encoded yet, each once."""
        return [text for text in dict.fromkeys(texts) if not self._path(text).exists()]

    def fill(self, texts: Iterable[str], open_bridge: Callable[[], Bridge | None]) -> None:
        """Encode what is missing; the encoder is loaded only where something is, and freed."""
        missing = self.missing(texts)
        if not missing:
            return
        bridge = open_bridge()
        if bridge is None:
            raise ValueError("there is no text encoder: name one with --clip, or captions' files")
        for text in missing:
            states = bridge.encode_text(text)
            write_caption(self._path(text), Caption(states, text, encoder=self.encoder))
        bridge.free()

    def _path(self, text: str) -> Path:
        name = hashlib.sha256(f"{self.encoder}\n{text}".encode(errors="surrogatepass")).hexdigest()
        return self.folder / f"{name[:40]}.safetensors"
