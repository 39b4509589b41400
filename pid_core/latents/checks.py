"""Whether a latent is one that can be decoded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import BrokenLatentError, NoImageLatentError, UnclearFamilyError, WrongChannelsError
from .families import families, families_with

# Latents that PiD has no checkpoint for, by their channels.
_FOREIGN = {48: "Wan 2.2", 64: "Qwen-Image 2.1"}


def detect_family(latent: Tensor) -> str:
    """Name the only family a latent [B, C, h, w] (or [B, C, 1, h, w]) can be of, from its channel count.

    Raises ValueError with the candidates when several share the count (16) or none has it.
    """
    if latent.ndim not in (4, 5):
        raise NoImageLatentError(latent.shape)
    channels = latent.shape[1]
    names = [row.name for row in families_with(channels)]
    if len(names) == 1:
        return names[0]
    if names:
        raise UnclearFamilyError(channels, names)
    error = wrong_channels(channels, None)
    if error.foreign:
        raise error
    known = ", ".join(f"{row.channels} ({row.name})" for row in families())
    raise ValueError(f"the latent has {error.channels()}; PiD decodes latents of {known} channels")


def wrong_channels(
    found: int, needed: int | None, chosen: str | None = None, blank: bool = False
) -> WrongChannelsError:
    """The error for a latent of `found` channels; see there."""
    made_by = [row.name for row in families_with(found)]
    takes = [] if needed is None else [row.name for row in families_with(needed)]
    foreign = _FOREIGN.get(found)
    return WrongChannelsError(found, needed, families=made_by, takes=takes, chosen=chosen, foreign=foreign, blank=blank)


def is_blank(latent: Tensor) -> bool:
    """Whether an image of the latent [B, ...] holds nothing: it decodes to a grey that no picture gives."""
    return latent.numel() > 0 and not bool(latent.flatten(1).any(dim=1).all())


def check_latent(latent: Tensor, channels: int, chosen: str | None = None) -> Tensor:
    """Return the latent as [B, C, h, w] (a single-frame 5-D latent is squeezed), or raise ValueError in one line.

    channels: those of the checkpoint; of the family `chosen`, where there is no checkpoint.
    """
    if latent.ndim == 5:
        if latent.shape[2] != 1:
            raise ValueError(
                f"the latent holds a video of {latent.shape[2]} frames, PiD decodes one frame: take one out of it first"
            )
        latent = latent[:, :, 0]
    if latent.ndim != 4:
        raise NoImageLatentError(latent.shape)
    if latent.shape[1] != channels:
        raise wrong_channels(latent.shape[1], channels, chosen, is_blank(latent))
    if math.prod(latent.shape) == 0:
        raise ValueError(f"the latent is empty, its shape is {list(latent.shape)}: make it anew from a picture")
    if not bool(torch.isfinite(latent).all()):
        raise BrokenLatentError(int((~torch.isfinite(latent)).sum()))
    return latent
