"""Latent families: one table of what each VAE's latent looks like and how PiD wants it.

The network reads a family's *normalised* latent. A VAE gives raw values; `normalise` maps raw to normalised.
Source: spec of the NVIDIA release (nv-tlabs/PiD) for the constants, and its `add_noise` helpers for the noising forms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..printable import quoted

if TYPE_CHECKING:  # batch --dry-run does without PyTorch, which takes half a gigabyte
    from torch import Tensor

# Per-channel statistics of the Wan 2.1 / Qwen-Image VAE.
_QWEN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
_QWEN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


class VAEFile(NamedTuple):
    """How a VAE is known by its file: `tensor` has `ndim` sizes, the second is `channels`.

    alike: another VAE that looks the same.
    """

    tensor: str
    channels: int
    ndim: int = 4
    alike: str = ""


class LatentModel(NamedTuple):
    """A diffusion model that makes latents: its name in lists, and as shown.

    NVIDIA stops it after `stop` of `steps` steps.
    """

    name: str
    shown: str
    stop: int
    steps: int


@dataclass(frozen=True)
class LatentFamily:
    """One VAE family: all that is known of it, so that every list and text can be made of it.

    `channels` and `down` describe the latent tensor [B, channels, H/down, W/down]; `shift` and `scale` are the affine
    map raw -> normalised, (raw - shift) * scale, a single number or one per channel; `noising` is "flow"
    ((1-s)*z + s*eps) or "vp" (sqrt(1-s^2)*z + s*eps); `serves` names the models that share this latent space. `unit`
    marks a family whose latents come normalised to mean 0 and deviation 1: no VAE makes them, but an encoder (rae).
    `square` is the side in pixels of the only pictures its latents are made of, 0 where they may be of any size.
    `shown` is its name in a model set, `about` whose latents these are, for tooltips; `generators` are those that can
    be stopped early.
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
    square: int = 0
    shown: str = ""
    about: str = ""
    vae: VAEFile | None = None
    generators: tuple[LatentModel, ...] = ()

    def normalise(self, latent: Tensor) -> Tensor:
        """Raw VAE latent [B, C, ...] -> the network's space, same shape and dtype."""
        return (latent - _per_channel(self.shift, latent)) * _per_channel(self.scale, latent)

    def denormalise(self, latent: Tensor) -> Tensor:
        """The network's space -> raw VAE latent; the inverse of `normalise`."""
        return latent / _per_channel(self.scale, latent) + _per_channel(self.shift, latent)


def _per_channel(value: float | tuple[float, ...], like: Tensor) -> Tensor | float:
    if isinstance(value, tuple):
        import torch

        return torch.tensor(value, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.ndim - 2))
    return value


_IMAGE_VAE, _VIDEO_VAE = "decoder.conv_in.weight", "decoder.conv1.weight"
_ROWS = (
    LatentFamily(
        "flux",
        channels=16,
        down=8,
        shift=0.1159,
        scale=0.3611,
        serves=("zimage",),
        shown="FLUX",
        about="FLUX.1, Z-Image",
        vae=VAEFile(_IMAGE_VAE, 16),
        generators=(
            LatentModel("flux", "Flux", 24, 28),
            LatentModel("zimage", "Z-Image", 46, 50),
            LatentModel("zimage_turbo", "Z-Image Turbo", 8, 8),
        ),
    ),
    # Flux.2's own VAE normalises: its latents need nothing more. A cell holds two by two of the VAE's.
    LatentFamily(
        "flux2",
        channels=128,
        down=16,
        serves=("klein", "ideogram4", "ernie"),
        shown="FLUX.2",
        about="FLUX.2, Klein, Ideogram 4, ERNIE-Image",
        vae=VAEFile(_IMAGE_VAE, 32),
        generators=(LatentModel("flux2", "Flux.2", 46, 50), LatentModel("flux2_klein", "Flux.2 Klein", 4, 4)),
    ),
    LatentFamily(
        "sd3",
        channels=16,
        down=8,
        shift=0.0609,
        scale=1.5305,
        shown="SD3",
        about="SD 3 and 3.5",
        vae=VAEFile(_IMAGE_VAE, 16),
        generators=(LatentModel("sd3", "SD3", 24, 28),),
    ),
    LatentFamily(
        "sdxl",
        channels=4,
        down=8,
        scale=0.13025,
        noising="vp",
        serves=("kolors",),
        shown="SDXL",
        about="SDXL, Kolors",
        vae=VAEFile(_IMAGE_VAE, 4, alike="SD 1"),
        generators=(LatentModel("sdxl", "SDXL", 26, 30),),
    ),
    LatentFamily(
        "qwenimage",
        channels=16,
        down=8,
        shift=_QWEN_MEAN,
        scale=tuple(1 / s for s in _QWEN_STD),
        serves=("krea2", "anima"),
        shown="Qwen-Image",
        about="Qwen-Image, Krea 2, Anima",
        vae=VAEFile(_VIDEO_VAE, 16, ndim=5),
        generators=(LatentModel("qwenimage", "Qwen-Image", 44, 50),),
    ),
    # RAE latents arrive already normalised: their statistics are files of their own, not constants.
    LatentFamily("dinov2", 768, 16, unit=True, square=512, about="RAE latents, normalised"),
    LatentFamily("siglip", 1152, 16, sr_scale=8, unit=True, square=256, about="RAE latents, normalised"),
    # The bundled model's own space: pixel_unshuffle(image in [-1, 1], 2), lossless.
    LatentFamily("rgb", 12, 2, about="PiD RGB Latent"),
)

LATENT_FAMILIES: dict[str, LatentFamily] = {
    name: row for row in _ROWS for name in (row.name, *row.serves)
}  # family or alias -> row


def families() -> list[LatentFamily]:
    """All rows, aliases not repeated."""
    return list(dict.fromkeys(LATENT_FAMILIES.values()))


def families_with(channels: int) -> list[LatentFamily]:
    """All rows whose latent has this many channels (aliases not repeated)."""
    return [row for row in families() if row.channels == channels]


def get_family(name: str) -> LatentFamily:
    """The row for a family or alias. Raises ValueError naming the known ones."""
    if not isinstance(name, str) or name not in LATENT_FAMILIES:
        raise ValueError(f"unknown latent family {quoted(name)}; choose one of {', '.join(LATENT_FAMILIES)}")
    return LATENT_FAMILIES[name]


def latent_cell(family: LatentFamily) -> int:
    """Output pixels that one latent cell covers on each side."""
    return family.down * family.sr_scale
