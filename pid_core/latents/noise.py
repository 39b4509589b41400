"""Noise of a latent in its family's form: degrade_sigma, and the part of the latent that is left beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.devices import to_device
from ..printable import quoted
from .families import get_family

Sigma = float | Sequence[float] | Tensor  # degrade_sigma: a number, one per image, or a map [1 or B, 1, h, w]


def sigma_per_image(
    sigma: Sigma, batch: int, device: torch.device | str = "cpu", cells: Sequence[int] | None = None
) -> Tensor:
    """degrade_sigma, a number or one per image -> float32 tensor [batch].

    cells: (h, w) of the latent, for which a map of a value per cell, [1 or batch, 1, h, w], is taken too, and comes
    back as [batch, 1, h, w].
    Raises ValueError when the count does not match the batch, or the map the cells, or a value is no number or outside
    0 to 1.
    """
    try:
        values = to_device(torch.as_tensor(sigma), device)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"degrade_sigma must be a number, or one number per image, got {quoted(sigma)}") from None
    if cells is not None and values.ndim == 4:
        return _checked_map(values, batch, cells)
    values = values.reshape(-1)
    if values.numel() not in (1, batch):
        raise ValueError(
            f"degrade_sigma has {values.numel()} values for {batch} images: give one number, or one per image"
        )
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"degrade_sigma must be between 0 and 1, got {', '.join(f'{v:g}' for v in values)}")
    return values.expand(batch)


def _checked_map(values: Tensor, batch: int, cells: Sequence[int]) -> Tensor:
    if values.shape[0] not in (1, batch) or values.shape[1] != 1 or tuple(values.shape[2:]) != tuple(cells):
        raise ValueError(
            f"the map of degrade_sigma is {list(values.shape)}; {batch} latents of {cells[0]} x {cells[1]} cells need "
            f"[{batch}, 1, {cells[0]}, {cells[1]}]"
        )
    if not bool(((values >= 0) & (values <= 1)).all()):
        least, most = values.aminmax()
        raise ValueError(f"degrade_sigma must be between 0 and 1, the map holds {least:g} to {most:g}")
    return values.float().expand(batch, -1, -1, -1)


def degrade(latent: Tensor, sigma: Sigma, family: str, seed: int) -> Tensor:
    """Add noise of level `sigma` (0 to 1; see `Sigma`) to a normalised latent in its family's form.

    The noise is drawn in float32 on the CPU from a generator of its own, so the same seed gives the same pattern on
    every device and at every sigma, and never shifts the image's noise. What has sigma 0 comes back untouched.
    Same shape and dtype.
    """
    sigma = _per_image(sigma, latent)
    eps = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(
        latent.device
    )
    return torch.where(sigma > 0, (signal_scale(sigma, family) * latent.float() + sigma * eps).to(latent.dtype), latent)


def scale_down(latent: Tensor, sigma: Sigma, family: str) -> Tensor:
    """A normalised latent that carries noise already, at the size it has among latents of noise level `sigma`.

    As `degrade`, with nothing added: for latents of a noisy picture, whose own noise stands for what would be added.
    """
    sigma = _per_image(sigma, latent)
    return torch.where(sigma > 0, (signal_scale(sigma, family) * latent.float()).to(latent.dtype), latent)


def _per_image(sigma: Sigma, latent: Tensor) -> Tensor:
    """As it stands beside the latent [B, C, h, w] or [B, C, 1, h, w]."""
    values = sigma_per_image(sigma, latent.shape[0], latent.device, latent.shape[-2:])
    if values.ndim == 4:
        return values if latent.ndim == 4 else values[:, :, None]
    return values.view(-1, *[1] * (latent.ndim - 1))


def signal_scale(sigma: Tensor, family: str) -> Tensor:
    """The factor on the latent beside noise of level `sigma`, 0 to 1."""
    return (1 - sigma * sigma).clamp(min=0).sqrt() if get_family(family).noising == "vp" else 1 - sigma
