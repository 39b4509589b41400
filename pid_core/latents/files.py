"""Latents as files, in ComfyUI's own .latent format, with what PiD must know of them beside: family and noise level."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..entries import read_object
from ..errors import said_of
from ..printable import printable, quoted
from ..tensor_files import read_tensors
from .checks import check_latent
from .families import get_family

_TENSOR, _MARK = "latent_tensor", "latent_format_version_0"
_OLD_SCALE = 0.18215  # ComfyUI's first files hold scaled latents and no mark
_ENTRY = "pid_latent"


@dataclass(frozen=True)
class SavedLatent:
    """samples: a VAE's raw latent [B, C, h, w] (or [B, C, 1, h, w]), as ComfyUI passes it. family: its name, None where
    it is not known. sigma: the noise level it carries, 0 for a clean one. size: (height, width) in pixels of the
    picture it was made from, where that is smaller than whole latent cells."""

    samples: Tensor
    family: str | None = None
    sigma: float = 0.0
    size: tuple[int, int] | None = None


def latent_bytes(latent: SavedLatent, metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a file that ComfyUI's LoadLatent reads too. metadata: more entries, such as ComfyUI's workflow.

    Raises ValueError in one line where the latent, its family and its sigma do not fit.
    """
    _check_sigma(latent.sigma)
    channels = latent.samples.shape[1] if latent.samples.ndim > 1 else 0
    if latent.family is not None:
        row = get_family(latent.family)
        if row.channels != channels:
            check_latent(latent.samples, row.channels, row.name)
    check_latent(latent.samples, channels)
    about: dict[str, Any] = {"family": latent.family, "degrade_sigma": latent.sigma}
    if latent.size is not None:
        about["picture_size"] = list(latent.size)
    tensors = {_TENSOR: latent.samples.detach().cpu().contiguous(), _MARK: torch.tensor([])}
    return save(tensors, {**(metadata or {}), _ENTRY: json.dumps(about)})


def read_latent(path: Path) -> SavedLatent:
    """Read a file of ours or of ComfyUI's SaveLatent; samples come as float32.

    Raises FileNotFoundError, or ValueError in one line for a file that is corrupt or no latent.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path, "latent", only=(_TENSOR, _MARK), mapped=False)
    name, samples = printable(path.name), tensors.get(_TENSOR)
    if samples is None:
        raise ValueError(f"{name} is no latent: it has no tensor {_TENSOR}")
    if not samples.is_floating_point():
        raise ValueError(f"{name} is no latent: its {_TENSOR} is {samples.dtype}, not floating-point numbers")
    samples = samples.float()
    if _MARK not in tensors:
        samples = samples / _OLD_SCALE
    try:
        check_latent(samples, samples.shape[1] if samples.ndim > 1 else 0)
        family, sigma, size = _read_about(metadata.get(_ENTRY), samples)
    except ValueError as error:
        raise said_of(name, error) from None
    return SavedLatent(samples, family, sigma, size)


def _read_about(text: str | None, samples: Tensor) -> tuple[str | None, float, tuple[int, int] | None]:
    if text is None:
        return None, 0.0, None
    channels = samples.shape[1]
    about = read_object(text, f"its entry {_ENTRY}")
    family, sigma = about.get("family"), about.get("degrade_sigma", 0.0)
    size = about.get("picture_size") or None
    if isinstance(sigma, bool) or not isinstance(sigma, int | float):
        raise ValueError(f"its degrade_sigma is {quoted(sigma)}, a number is needed")
    if size is not None and not (isinstance(size, list) and all(type(side) is int for side in size)):
        raise ValueError(f"its picture_size is {quoted(size)}, [height, width] is needed")
    _check_sigma(sigma)
    if family is not None:
        get_family(family)
    sigma, size = float(sigma), None if size is None else tuple(size)
    if family is not None and get_family(family).channels != channels:
        raise ValueError(f"it says {family}, whose latents have {get_family(family).channels} channels, not {channels}")
    if size is not None:
        down = get_family(family).down if family else 0
        padded = len(size) == 2 and all(
            0 <= cells * down - side < down for cells, side in zip(samples.shape[-2:], size, strict=True)
        )
        if not padded:
            raise ValueError(
                f"it says a picture of {quoted(size)}, which its latent {list(samples.shape)} does not hold"
            )
    return family, sigma, size


def _check_sigma(sigma: float) -> None:
    if not 0 <= sigma <= 1:
        raise ValueError(f"degrade_sigma must be between 0 and 1, got {printable(sigma)}")
