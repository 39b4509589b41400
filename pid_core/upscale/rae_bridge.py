"""The bridge of the RAE families: pictures by their encoder here, texts by whatever encodes texts."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import torch
from torch import Tensor

from ..model.devices import usual_dtype
from ..rae.encoder import RAEEncoder, encode, load_encoder
from .bridge import Bridge


class RAEBridge:
    """path, statistics: files of `load_encoder`. texts: the bridge that has the text encoder, None without one."""

    def __init__(
        self, device: torch.device, family: str, path: Path, statistics: Path | None = None, texts: Bridge | None = None
    ):
        self._device, self._family, self._path, self._statistics = device, family, path, statistics
        self._texts, self._lock = texts, threading.Lock()
        self._encoder: RAEEncoder | None = None

    def encode_picture(self, image: Tensor) -> Tensor:
        """See `Bridge`."""
        with self._lock:
            if self._encoder is None:
                half = usual_dtype(self._device) == torch.bfloat16
                dtype = torch.bfloat16 if half else torch.float32
                encoder = load_encoder(self._path, self._statistics, family=self._family, dtype=dtype)
                self._encoder = encoder.to(self._device)
            return encode(self._encoder, image)

    def encode_text(self, text: str) -> Tensor:
        """See `Bridge`."""
        if self._texts is None:
            raise ValueError("there is no --clip, which is needed here: name its file")
        return self._texts.encode_text(text)

    def free(self) -> None:
        """See `Bridge`."""
        with self._lock:
            self._encoder = None
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        if self._texts is not None:
            self._texts.free()
