"""Whether a latent is one that can be decoded, and what to say where it is not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .families import families, families_with, get_family, in_words


def detect_family(latent: Tensor) -> str:
    """Name the only family a latent [B, C, h, w] (or [B, C, 1, h, w]) can be of, from its channel count.

    Raises ValueError with the candidates when several share the count (16) or none has it.
    """
    if latent.ndim not in (4, 5):
        raise ValueError(f"the latent must have shape [B, C, h, w], got {list(latent.shape)}: connect an image latent")
    channels = latent.shape[1]
    rows = families_with(channels)
    if len(rows) == 1:
        return rows[0].name
    if rows:
        names = in_words([row.name for row in rows])
        raise ValueError(
            f"a latent with {channels} channels can be of {names}: set latent_format to the one whose VAE made it"
        )
    if channels in _FOREIGN:
        raise ValueError(wrong_channels(channels, get_family("flux").channels))
    known = ", ".join(f"{row.channels} ({row.name})" for row in families())
    raise ValueError(f"the latent has {describe_channels(channels)}; PiD decodes latents of {known} channels")


# Latents that PiD has no checkpoint for, by their channels.
_FOREIGN = {48: "Wan 2.2", 64: "Qwen-Image 2.1"}


def describe_channels(channels: int) -> str:
    """What a latent with this many channels is, in a few words."""
    if channels in _FOREIGN:
        return f"{channels} channels, as those of {_FOREIGN[channels]} have, which PiD has no checkpoint for"
    if channels == 3:
        return "3 channels, which is pixels"
    names = [row.name for row in families_with(channels)]
    if names == ["rgb"]:
        return f"{channels} channels, a picture from PiD RGB Latent"
    return f"{channels} channels, {in_words(names) if names else 'of no family that PiD knows'}"


def wrong_channels(found: int, needed: int) -> str:
    """The line for a latent that a checkpoint cannot take, with what to do for the mistake it seems to be."""
    takes = [row.name for row in families_with(needed)]
    names = [row.name for row in families_with(found)]
    if found in _FOREIGN:
        way = "PiD RGB Latent" if takes == ["rgb"] else f"VAE Encode with the VAE of {in_words(takes or ['flux'])}"
        return f"the latent has {describe_channels(found)}: turn it into a picture with VAE Decode, then use {way}"
    file_for = f"choose a PiD file for {in_words(names)} in PiD Loader"
    if takes == ["rgb"]:
        # the bundled model has no VAE
        advice = "put PiD RGB Latent before it, with the picture"
        if names:
            advice = f"{file_for}, or {advice}"
    elif names == ["rgb"]:
        advice = "choose pid_nano (bundled) in PiD Loader, or make the latent with VAE Encode"
    else:
        advice = f"connect a latent that the VAE of {in_words(takes)} made" if takes else "connect a latent made for it"
        if names:
            advice += f", or {file_for}"
    takes_text = {"rgb": "pictures from PiD RGB Latent"}.get(takes[0], in_words(takes)) if takes else "its own"
    return f"the latent has {describe_channels(found)}; this checkpoint takes {needed}, {takes_text}: {advice}"


def _wrong_format(found: int, chosen: str) -> str:
    names = [row.name for row in families_with(found)]
    advice = f"set latent_format to {in_words(names)}" if names else "connect another latent"
    return f"latent_format is {chosen}, but the latent has {describe_channels(found)}: {advice}"


BLANK = (
    "the latent is blank, all its values are 0, as from an Empty Latent node: connect the latent of a sampler or of "
    "VAE Encode"
)


def is_blank(latent: Tensor) -> bool:
    """Whether an image of the latent [B, ...] holds nothing: it decodes to a grey that no picture gives."""
    return latent.numel() > 0 and not bool(latent.flatten(1).any(dim=1).all())


def check_latent(latent: Tensor, channels: int, chosen: str | None = None) -> Tensor:
    """Return the latent as [B, C, h, w] (a single-frame 5-D latent is squeezed), or raise ValueError in one line.

    channels: those of the checkpoint; of the family `chosen` as latent_format, where there is no checkpoint.
    """
    if latent.ndim == 5:
        if latent.shape[2] != 1:
            raise ValueError(
                f"the latent holds a video of {latent.shape[2]} frames, PiD decodes one frame: take one out of it first"
            )
        latent = latent[:, :, 0]
    if latent.ndim != 4:
        raise ValueError(f"the latent must have shape [B, C, h, w], got {list(latent.shape)}: connect an image latent")
    if latent.shape[1] != channels:
        count = latent.shape[1]
        line = wrong_channels(count, channels) if chosen is None else _wrong_format(count, chosen)
        raise ValueError(line + (". It is blank, as from an Empty Latent node" if is_blank(latent) else ""))
    if math.prod(latent.shape) == 0:
        raise ValueError(f"the latent is empty, its shape is {list(latent.shape)}: make it anew from a picture")
    if not bool(torch.isfinite(latent).all()):
        bad = int((~torch.isfinite(latent)).sum())
        raise ValueError(
            f"the latent holds {bad} NaN or infinite values: the node that made it failed; change its settings or dtype"
        )
    return latent
