"""From a VAE's latent to what the network reads: family, normalisation, noise, output size."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..errors import BlankLatentError, CarriedFamilyError, CarriedNoiseError, PiDError, WrongFamilyError
from .checks import check_latent, detect_family, is_blank
from .early_stop import CarriedNoise
from .families import LatentFamily, get_family, latent_cell
from .noise import Sigma, degrade, scale_down, sigma_per_image
from .sigma_map import SigmaMap

TRAINED_SIGMA = 0.8  # largest degrade_sigma in NVIDIA's training
LATENT_NOISE = ("add", "scale", "keep")
SAME_SIGMA = 0.005  # the widgets' rounding


class LatentSpec(NamedTuple):
    """A checkpoint's input: latent channels, output pixels per latent cell, the family where it is known."""

    channels: int
    cell: int
    family: str | None = None


class LQInput(NamedTuple):
    """latent [B, C, h, w] float32, normalised, with its noise; sigma float32 [B], or a map [B, 1, h, w]; size of the
    output; warnings.
    """

    latent: Tensor
    sigma: Tensor
    family: LatentFamily
    height: int
    width: int
    warnings: tuple[PiDError, ...] = ()


def prepare_lq(
    latent: Tensor,
    family: str = "auto",
    sigma: Sigma | SigmaMap = 0.0,
    *,
    latent_noise: str = "add",
    seed: int = 0,
    spec: LatentSpec | None = None,
    carried: CarriedNoise | None = None,
) -> LQInput:
    """Check a raw VAE latent [B, C, h, w] (or [B, C, 1, h, w]) and make it the network's input.

    family: a name in LATENT_FAMILIES, or "auto": the spec's, else the only one with that channel count.
    sigma: degrade_sigma, 0 to 1, one number, one per image, or a map, [1 or B, 1, h, w] or by masks. latent_noise:
    "add" noise of that level, drawn from `seed`; "scale" a noisy picture's latent down to where noise of that level
    belongs, and add nothing; "keep" a latent that is noised already. carried: what a latent that was stopped early says
    of itself; where the rest disagrees, `LQInput.warnings` tells. Raises ValueError in one line when anything does not
    fit.
    """
    if latent_noise not in LATENT_NOISE:
        raise ValueError(f"latent_noise is {latent_noise!r}; choose one of {', '.join(LATENT_NOISE)}")
    row = _family(latent, family, spec, carried)
    latent = check_latent(latent, spec.channels) if spec else check_latent(latent, row.channels, row.name)
    cell = spec.cell if spec else latent_cell(row)
    if isinstance(sigma, SigmaMap):
        sigma = sigma.on_cells(latent.shape[2], latent.shape[3], cell)
    sigmas = sigma_per_image(sigma, latent.shape[0], cells=latent.shape[2:])
    warnings: tuple[PiDError, ...] = (BlankLatentError(),) if is_blank(latent) else ()
    latent = row.normalise(latent.float())
    warnings += _scale_warnings(row, latent)
    if latent_noise == "add" and bool((sigmas > 0).any()):
        latent = degrade(latent, sigmas, row.name, seed)
    elif latent_noise == "scale":
        latent = scale_down(latent, sigmas, row.name)
    if carried:
        warnings += _noise_warnings(carried, sigmas, latent_noise)
    return LQInput(latent, sigmas, row, latent.shape[2] * cell, latent.shape[3] * cell, warnings)


def _scale_warnings(row: LatentFamily, latent: Tensor) -> tuple[PiDError, ...]:
    spread = float(latent.square().mean().sqrt())
    if not row.unit or 0.4 < spread < 2.5:
        return ()
    return (
        PiDError(
            f"the latent's values are about {spread:.1g} large; {row.name} latents are about 1 once normalised: "
            "normalise them with their encoder's statistics first"
        ),
    )


def _noise_warnings(carried: CarriedNoise, sigmas: Tensor, latent_noise: str) -> tuple[PiDError, ...]:
    changed = latent_noise != "keep" and bool((sigmas > 0).any())
    if changed or bool(((sigmas - carried.sigma).abs() > SAME_SIGMA).any()):
        how = latent_noise if changed else "keep"
        return (CarriedNoiseError(carried.sigma, sigmas.unique().tolist(), how),)
    return ()


def _family(latent: Tensor, choice: str, spec: LatentSpec | None, carried: CarriedNoise | None) -> LatentFamily:
    if carried is None:
        return _chosen_family(latent, choice, spec)
    own = get_family(carried.family)
    if choice == "auto" and (spec is None or spec.family is None):
        choice = own.name
    row = _chosen_family(latent, choice, spec)
    if row != own:
        raise CarriedFamilyError(own.name, row.name)
    return row


def _chosen_family(latent: Tensor, choice: str, spec: LatentSpec | None) -> LatentFamily:
    if choice == "auto":
        if spec is not None and spec.family is None:
            check_latent(latent, spec.channels)
        return get_family((spec and spec.family) or detect_family(latent))
    row = get_family(choice)
    if spec is not None and (spec.family not in (None, row.name) or spec.channels != row.channels):
        raise WrongFamilyError(choice, spec.family, row.channels, spec.channels)
    return row
