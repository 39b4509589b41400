"""ComfyUI's own VAE and text encoder, without its server."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor

from pid_core.captions.clip import check_encoder, encode_with
from pid_core.log import log
from pid_core.printable import printable

Result = TypeVar("Result")
# How ComfyUI's log begins a line about weights that a file lacks. It goes on with random ones.
LACKING = ("Missing VAE keys", "clip missing")


class ComfyBridge:
    """comfyui: the folder with ComfyUI's code. device: where the network runs; a CPU is ComfyUI's device then too.

    vae, clip: files, in any form that ComfyUI reads. ComfyUI is imported with the first of them, and chooses dtypes,
    tiles a picture that does not fit the memory, and keeps as much on the device as it has room for.
    """

    def __init__(self, comfyui: Path, device: torch.device, *, vae: Path | None = None, clip: Path | None = None):
        self._folder, self._device = comfyui, device
        self._paths = {"vae": vae, "clip": clip}
        self._comfy: SimpleNamespace | None = None
        self._lock = threading.Lock()  # ComfyUI knows one thread at a time
        self._loaded: dict[str, Any] = {}

    def encode_picture(self, image: Tensor) -> Tensor:
        """See `Bridge`. Raises ValueError in one line where the VAE is damaged, or gives no numbers."""
        with self._lock:
            vae = self._get("vae", _load_vae)
            with _quiet(), torch.inference_mode():
                # one by one: VAEs for video take a batch for frames
                latents = [vae.encode(one) for one in image.split(1)]
        latent = torch.cat([one[:, :, 0] if one.ndim == 5 else one for one in latents])
        if not bool(torch.isfinite(latent).all()):
            raise ValueError(f"{self._name('vae')} gave NaN or infinite values for this picture: try --device cpu")
        return _plain(latent)

    def encode_text(self, text: str) -> Tensor:
        """See `Bridge`."""
        with self._lock:
            clip = self._get("clip", _load_clip)
            with _quiet(), torch.inference_mode():
                parts, cut = encode_with(clip, *_tokenizer(clip), text)
        if cut:
            log.warning("the text is too long: its last %s tokens are left out", cut)
        ((states, _),) = parts
        return _plain(states)

    def free(self) -> None:
        """See `Bridge`."""
        with self._lock:
            self._loaded.clear()
            if self._comfy is not None:
                self._comfy.management.unload_all_models()
                gc.collect()
                self._comfy.management.soft_empty_cache()

    def _get(self, kind: str, load: Callable[[SimpleNamespace, Path], Any]) -> Any:
        if kind not in self._loaded:
            path = self._paths[kind]
            if path is None:
                raise ValueError(f"there is no --{kind}, which is needed here: name its file")
            comfy = self._comfy = self._comfy or import_comfy(self._folder, self._device)
            with _quiet() as lines, torch.inference_mode():
                loaded = _in_one_line(self._name(kind), lambda: load(comfy, path))
            lacking = next((line for line in lines if line.startswith(LACKING)), None)
            if lacking is not None:
                raise ValueError(
                    f"{self._name(kind)} lacks weights that belong to it, so it is damaged or another file: fetch it "
                    f"again ({printable(lacking, 120)})"
                )
            self._loaded[kind] = loaded
        return self._loaded[kind]

    def _name(self, kind: str) -> str:
        path = self._paths[kind]
        return printable(path.name) if path else kind


def _load_vae(comfy: SimpleNamespace, path: Path) -> Any:
    tensors, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
    vae = comfy.sd.VAE(sd=tensors, metadata=metadata)
    if vae.first_stage_model is None:
        raise ValueError("this ComfyUI knows no VAE of its layout")
    return vae


def _load_clip(comfy: SimpleNamespace, path: Path) -> Any:
    kind = getattr(comfy.sd.CLIPType, "PIXELDIT", None)
    if kind is None:
        raise ValueError("this ComfyUI does not know PiD's text encoder: use ComfyUI v0.25.0 or newer")
    clip = comfy.sd.load_clip([str(path)], clip_type=kind)
    check_encoder(clip)
    return clip


def _tokenizer(clip: Any) -> tuple[str, Any]:
    """The encoder's name in a CLIP, and the SentencePiece processor of it."""
    try:
        return clip.tokenizer.clip_name, getattr(clip.tokenizer, clip.tokenizer.clip).tokenizer.tokenizer
    except AttributeError as error:
        raise ValueError(f"this ComfyUI keeps its tokenizer elsewhere ({error}): update ComfyUI-PiDKit") from None


def import_comfy(folder: Path, device: torch.device) -> SimpleNamespace:
    """ComfyUI's modules. Its own command line is left alone: it reads none unless its server asks for that."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # before a `nodes` of this project
    with _quiet():
        try:
            from comfy.cli_args import args

            args.cpu = device.type == "cpu"
            if device.type == "cuda" and device.index is not None:
                torch.cuda.set_device(device)  # ComfyUI takes the current one
            import comfy.model_management
            import comfy.sd
            import comfy.utils
        except ImportError as error:
            raise ValueError(
                f"ComfyUI in {printable(folder)} cannot be imported ({printable(error, 120)}): run this with the "
                f"Python that ComfyUI runs in, not {printable(sys.executable)}"
            ) from None
    return SimpleNamespace(sd=comfy.sd, utils=comfy.utils, management=comfy.model_management)


def _in_one_line(name: str, load: Callable[[], Result]) -> Result:
    """What ComfyUI's loaders raise over a file that is not what they expect is anything, of many lines."""
    try:
        return load()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except ValueError as error:
        raise ValueError(f"{name}: {_first_line(error)}") from None
    except (RuntimeError, KeyError, IndexError, AttributeError, TypeError, OSError) as error:
        if "memory" in str(error).lower():
            raise
        raise ValueError(
            f"{name} cannot be loaded by ComfyUI; it is damaged or another kind of file ({_first_line(error)})"
        ) from None


def _first_line(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0], 200)


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """ComfyUI logs what it does; here its warnings are kept, and told after it is done."""
    root, keeper = logging.getLogger(), _Keeper(logging.WARNING)
    handlers, root.handlers = root.handlers, [keeper]
    try:
        yield keeper.lines
    finally:
        root.handlers = handlers
        for line in keeper.lines:
            if not line.startswith(LACKING):
                log.warning("ComfyUI: %s", line)


class _Keeper(logging.Handler):
    def __init__(self, level: int):
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _plain(tensor: Tensor) -> Tensor:
    """Float32 on the CPU, and no tensor of inference mode, with which little can be done elsewhere."""
    return tensor.float().cpu().clone()
