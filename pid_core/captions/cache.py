"""Encoded captions kept on disk, so that a 5 GB text encoder is needed once per text."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

from ..log import log
from .text import Caption, check_states, read_caption, read_caption_about, write_caption

_OURS = re.compile(r"[0-9a-f]{40}\.safetensors(\.[0-9a-f]{8}\.part)?")


class CaptionCache:
    """A folder of caption files, keyed by encoder and text, at most `limit` bytes; the least recently used go first.

    A file that is corrupt, foreign or not what its name says counts as absent and is written again. Trouble with the
    disk is logged and never stops a run: it is only a cache. limit 0 turns it off.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = Path(folder), limit

    def get(self, encoder: str, text: str) -> Caption | None:
        """The caption that this encoder made of this text, or None."""
        path = self._path(encoder, text)
        with contextlib.suppress(OSError, ValueError):
            caption = read_caption(path)
            if (caption.encoder, caption.text) == (encoder, text):
                with contextlib.suppress(OSError):
                    os.utime(path)  # marks it as used
                return caption
        return None

    def find(self, text: str) -> Caption | None:
        """The caption of this text that was used last, whatever encoded it."""
        for path in reversed(self._files()):
            with contextlib.suppress(OSError, ValueError):
                about = read_caption_about(path)
                if about.get("text") == text and path == self._path(about.get("encoder", ""), text):
                    return self.get(about["encoder"], text)
        return None

    def put(self, caption: Caption) -> None:
        """Keep a caption whose encoder is known; float32, so that a run from the cache equals the run before it."""
        if not self.limit or not caption.encoder:
            return
        with contextlib.suppress(ValueError):
            check_states(caption.states)
            path = self._path(caption.encoder, caption.text)
            try:
                write_caption(path, caption)
                self._shrink(path)
            except OSError as error:
                log.warning("the caption is not kept in the cache: %s", error)

    def _path(self, encoder: str, text: str) -> Path:
        key = hashlib.sha256(f"{encoder}\n{text}".encode(errors="surrogatepass")).hexdigest()
        return self.folder / f"{key[:40]}.safetensors"

    def _files(self) -> list[Path]:
        """Our files, the least recently used first."""
        found = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if _OURS.fullmatch(path.name):
                    with contextlib.suppress(OSError):
                        found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def _shrink(self, newest: Path) -> None:
        sizes = {}
        for path in self._files():
            with contextlib.suppress(OSError):
                sizes[path] = path.stat().st_size
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total <= self.limit:
                return
            if path == newest and size <= self.limit:
                continue
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
