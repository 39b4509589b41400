"""Latent families: one table of what each VAE's latent looks like and how PiD wants it.

The network reads a family's *normalised* latent. A VAE gives raw values; `normalise` maps raw to normalised.
Source: spec of the NVIDIA release (nv-tlabs/PiD) for the constants, and its `add_noise` helpers for the noising forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.devices import to_device
from ..printable import quoted

# Per-channel statistics of the Wan 2.1 / Qwen-Image VAE.
_QWEN_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_QWEN_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclass(frozen=True)
class LatentFamily:
    """One VAE family.

    `channels` and `down` describe the latent tensor [B, channels, H/down, W/down]; `shift` and `scale` are the affine
    map raw -> normalised, (raw - shift) * scale, a single number or one per channel; `noising` is "flow"
    ((1-s)*z + s*eps) or "vp" (sqrt(1-s^2)*z + s*eps); `serves` names the models that share this latent space. `unit`
    marks a family whose latents come normalised from outside, to mean 0 and deviation 1.
    """

    name: str
    channels: int
    down: int
    shift: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    noising: str = "flow"
    sr_scale: int = 4
    serves: tuple[str, ...] = ()
    unit: bool = False

    def normalise(self, latent: Tensor) -> Tensor:
        """Raw VAE latent [B, C, ...] -> the network's space, same shape and dtype."""
        return (latent - _per_channel(self.shift, latent)) * _per_channel(self.scale, latent)

    def denormalise(self, latent: Tensor) -> Tensor:
        """The network's space -> raw VAE latent; the inverse of `normalise`."""
        return latent / _per_channel(self.scale, latent) + _per_channel(self.shift, latent)


def _per_channel(value: float | tuple[float, ...], like: Tensor) -> Tensor | float:
    if isinstance(value, tuple):
        return torch.tensor(value, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.ndim - 2))
    return value


_ROWS = (
    LatentFamily("flux", 16, 8, 0.1159, 0.3611, serves=("zimage",)),
    # Flux.2's own VAE normalises: its latents need nothing more.
    LatentFamily("flux2", 128, 16, serves=("klein", "ideogram4", "ernie")),
    LatentFamily("sd3", 16, 8, 0.0609, 1.5305),
    LatentFamily("sdxl", 4, 8, 0.0, 0.13025, noising="vp", serves=("kolors",)),
    LatentFamily("qwenimage", 16, 8, _QWEN_MEAN, tuple(1 / s for s in _QWEN_STD), serves=("krea2", "anima")),
    # RAE latents arrive already normalised: their statistics are files of their own, not constants.
    LatentFamily("dinov2", 768, 16, unit=True),
    LatentFamily("siglip", 1152, 16, sr_scale=8, unit=True),
    # The bundled model's own space: pixel_unshuffle(image in [-1, 1], 2), lossless.
    LatentFamily("rgb", 12, 2),
)

LATENT_FAMILIES: dict[str, LatentFamily] = {
    name: row for row in _ROWS for name in (row.name, *row.serves)
}  # family or alias -> row


def families_with(channels: int) -> list[LatentFamily]:
    """All rows whose latent has this many channels (aliases not repeated)."""
    return [row for row in _ROWS if row.channels == channels]


def get_family(name: str) -> LatentFamily:
    """The row for a family or alias. Raises ValueError naming the known ones."""
    if not isinstance(name, str) or name not in LATENT_FAMILIES:
        raise ValueError(f"unknown latent family {quoted(name)}; choose one of {', '.join(LATENT_FAMILIES)}")
    return LATENT_FAMILIES[name]


def detect_family(latent: Tensor) -> str:
    """Name the only family a latent [B, C, h, w] (or [B, C, 1, h, w]) can be of, from its channel count.

    Raises ValueError with the candidates when several share the count (16: flux, sd3, qwenimage) or none has it.
    """
    if latent.ndim not in (4, 5):
        raise ValueError(f"the latent must have shape [B, C, h, w], got {list(latent.shape)}: connect an image latent")
    channels = latent.shape[1]
    rows = families_with(channels)
    if len(rows) == 1:
        return rows[0].name
    if rows:
        names = _either([row.name for row in rows])
        raise ValueError(
            f"a latent with {channels} channels can be of {names}: set latent_format to the one whose VAE made it"
        )
    if channels in _FOREIGN:
        raise ValueError(wrong_channels(channels, get_family("flux").channels))
    known = ", ".join(f"{row.channels} ({row.name})" for row in _ROWS)
    raise ValueError(f"the latent has {describe_channels(channels)}; PiD decodes latents of {known} channels")


def sigma_per_image(sigma: float | Sequence[float] | Tensor, batch: int, device: torch.device | str = "cpu") -> Tensor:
    """degrade_sigma, a number or one per image -> float32 tensor [batch].

    Raises ValueError when the count does not match the batch, or a value is no number or outside 0 to 1.
    """
    try:
        values = to_device(torch.as_tensor(sigma), device).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"degrade_sigma must be a number, or one number per image, got {quoted(sigma)}") from None
    if values.numel() not in (1, batch):
        raise ValueError(
            f"degrade_sigma has {values.numel()} values for {batch} images: give one number, or one per image"
        )
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"degrade_sigma must be between 0 and 1, got {', '.join(f'{v:g}' for v in values)}")
    return values.expand(batch)


def degrade(latent: Tensor, sigma: float | Sequence[float] | Tensor, family: str, seed: int) -> Tensor:
    """Add noise of level `sigma` (0 to 1, a number or one per image) to a normalised latent in its family's form.

    The noise is drawn in float32 on the CPU from a generator of its own, so the same seed gives the same pattern on
    every device and at every sigma, and never shifts the image's noise. An image whose sigma is 0 comes back untouched.
    Same shape and dtype.
    """
    s = _per_image(sigma, latent)
    eps = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(
        latent.device
    )
    return torch.where(s > 0, (_kept(s, family) * latent.float() + s * eps).to(latent.dtype), latent)


def scale_down(latent: Tensor, sigma: float | Sequence[float] | Tensor, family: str) -> Tensor:
    """A normalised latent that carries noise already, at the size it has among latents of noise level `sigma`.

    As `degrade`, with nothing added: for latents of a noisy picture, whose own noise stands for what would be added.
    """
    s = _per_image(sigma, latent)
    return torch.where(s > 0, (_kept(s, family) * latent.float()).to(latent.dtype), latent)


def _per_image(sigma: float | Sequence[float] | Tensor, latent: Tensor) -> Tensor:
    return sigma_per_image(sigma, latent.shape[0], latent.device).view(-1, *[1] * (latent.ndim - 1))


def _kept(s: Tensor, family: str) -> Tensor:
    """The factor on the latent at noise level s."""
    return (1 - s * s).clamp(min=0).sqrt() if get_family(family).noising == "vp" else 1 - s


def latent_cell(family: LatentFamily) -> int:
    """Output pixels that one latent cell covers on each side."""
    return family.down * family.sr_scale


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
    return f"{channels} channels, {_either(names) if names else 'of no family that PiD knows'}"


def wrong_channels(found: int, needed: int) -> str:
    """The line for a latent that a checkpoint cannot take, with what to do for the mistake it seems to be."""
    takes = [row.name for row in families_with(needed)]
    names = [row.name for row in families_with(found)]
    if found in _FOREIGN:
        way = "PiD RGB Latent" if takes == ["rgb"] else f"VAE Encode with the VAE of {_either(takes or ['flux'])}"
        return f"the latent has {describe_channels(found)}: turn it into a picture with VAE Decode, then use {way}"
    file_for = f"choose a PiD file for {_either(names)} in PiD Loader"
    if takes == ["rgb"]:
        # the bundled model has no VAE
        advice = "put PiD RGB Latent before it, with the picture"
        if names:
            advice = f"{file_for}, or {advice}"
    elif names == ["rgb"]:
        advice = "choose pid_nano (bundled) in PiD Loader, or make the latent with VAE Encode"
    else:
        advice = f"connect a latent that the VAE of {_either(takes)} made" if takes else "connect a latent made for it"
        if names:
            advice += f", or {file_for}"
    takes_text = {"rgb": "pictures from PiD RGB Latent"}.get(takes[0], _either(takes)) if takes else "its own"
    return f"the latent has {describe_channels(found)}; this checkpoint takes {needed}, {takes_text}: {advice}"


def _wrong_format(found: int, chosen: str) -> str:
    names = [row.name for row in families_with(found)]
    advice = f"set latent_format to {_either(names)}" if names else "connect another latent"
    return f"latent_format is {chosen}, but the latent has {describe_channels(found)}: {advice}"


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


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
