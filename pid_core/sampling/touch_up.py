"""touch_up: a part of a finished picture drawn again, and all the rest left as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..latents.checks import check_latent
from ..latents.feather import feathered
from ..latents.noise import Sigma, sigma_per_image
from ..model.config import PiDConfig
from ..model.devices import to_device
from ..model.guard import all_finite
from ..model.network import PiDNetwork
from ..progress import OnPart
from ..windows.part import part_around
from ..windows.plan import Window, WindowPlan
from .decode import Callback, check_student, decode
from .noises import noise_source
from .schedule import distilled_sigmas
from .surroundings import Surroundings

FEATHER = 32  # pixels, where nobody asks for another border
Planner = Callable[[int, int], WindowPlan]  # of a canvas of height x width pixels


class Part(NamedTuple):
    """What of a picture is drawn again. window: the rectangle that the network sees, in whole latent cells, so that it
    may end beyond the picture. mask [B or 1, 1, h, w]: what of the rectangle changes, feathered; 0: nothing.
    """

    window: Window
    mask: Tensor

    @classmethod
    def of(cls, mask: Tensor, feather: float, config: PiDConfig) -> Part | None:
        """For a mask [B or 1, 1, H, W] in 0 to 1 on the whole picture; None where it is empty."""
        window = part_around(mask > 0, config, int(feather))
        return None if window is None else cls(window, feathered(_cut(mask, window).float(), feather))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what of the picture is in the rectangle."""
        return self.mask.shape[-2], self.mask.shape[-1]

    @property
    def inside(self) -> Tensor:
        """Where anything changes, bool."""
        return self.mask > 0

    def of_picture(self, picture: Tensor) -> Tensor:
        """The rectangle [..., h, w] of something as large as the picture."""
        return _cut(picture, self.window)

    def of_cells(self, cells: Tensor, cell: int) -> Tensor:
        """The rectangle of the latent, or of a map of its cells."""
        return _cut(cells, self.window, cell)

    def put(self, picture: Tensor, drawn: Tensor) -> Tensor:
        """The picture [B, C, H, W] with the rectangle as it was drawn, [B, C, h, w], blended by the mask.

        Where the mask is 0 the values are the picture's own.
        """
        result, mask = picture.clone(), self.mask.to(picture.device)
        part = self.of_picture(result)
        blend = mask * drawn.to(part) + (1 - mask) * part
        part.copy_(torch.where(mask > 0, blend, part))
        return result


@torch.no_grad()
def touch_up(
    net: PiDNetwork,
    picture: Tensor,
    lq_latent: Tensor,
    mask: Tensor,
    caption: Tensor | None = None,
    degrade_sigma: Sigma = 0.0,
    *,
    feather: float = FEATHER,
    steps: int | None = None,
    seed: int = 0,
    noise: Tensor | None = None,
    step_noise: Sequence[Tensor] | None = None,
    plan: Planner | None = None,
    fuse: str = "pyramid",
    window_batch: int = 1,
    callback: Callback | None = None,
    on_part: OnPart | None = None,
) -> Tensor:
    """Draw a part of a finished picture [B, 3, H, W] in [-1, 1] again: the same picture, float32, with the part new.

    lq_latent [B, C, h, w]: the one it was decoded from, normalised. mask [B or 1, 1, H, W] in 0 to 1: what is drawn
    again, with a border of `feather` pixels around it that blends. Every value outside of that is the picture's own,
    to the bit. At every step the surroundings are the finished picture at that step's noise level (`Surroundings`).
    Only a rectangle around the mask is worked on (`part_around`). plan(height, width) cuts it into windows, of which
    only those run that touch the mask; by default it is one frame.
    noise [B, 3, H, W] and step_noise are those of the whole picture, by default drawn from `seed` as `decode` does;
    callback and on_part get what `decode` gives, of the rectangle. An empty mask gives the picture itself.
    caption, degrade_sigma, steps, fuse, window_batch: see `decode`. Raises what `decode` raises, and ValueError in one
    line for a picture or mask that does not fit.
    """
    check_student(net.config)
    config, device = net.config, next(net.parameters()).device
    lq_latent = check_latent(lq_latent, config.latent_channels)
    sigma = sigma_per_image(degrade_sigma, lq_latent.shape[0], device, lq_latent.shape[-2:])
    _check_picture(picture, lq_latent, config)
    _check_mask(mask, picture)
    part = Part.of(to_device(mask, device), feather, config)
    if part is None:
        return picture
    steps = config.steps if steps is None else steps
    levels = distilled_sigmas(steps)

    noises = noise_source(tuple(picture.shape), steps, seed, noise, step_noise, device)
    draws = map(part.of_picture, noises)
    finished = part.of_picture(to_device(picture, device))
    around = Surroundings(finished, part.inside, next(draws))
    drawn = decode(
        net,
        part.of_cells(lq_latent, config.latent_cell),
        caption,
        sigma if sigma.ndim == 1 else part.of_cells(sigma, config.latent_cell),
        steps=steps,
        noise=around.begin(levels[0].to(device)),
        step_noise=list(draws),
        size=part.size,
        windows=None if plan is None else plan(*(-(-side // config.align) * config.align for side in part.size)),
        fuse=fuse,
        window_batch=window_batch,
        surroundings=around,
        callback=callback,
        on_part=on_part,
    )
    return part.put(to_device(picture, device), drawn)


def _cut(canvas: Tensor, window: Window, cell: int = 1) -> Tensor:
    rows, cols = window.slices(cell)
    return canvas[..., rows, cols]


def _check_picture(picture: Tensor, lq_latent: Tensor, config: PiDConfig) -> None:
    images, height, width = lq_latent.shape[0], *config.output_size(*lq_latent.shape[-2:])
    if picture.ndim != 4 or picture.shape[:2] != (images, config.in_channels):
        raise ValueError(
            f"the picture has shape {list(picture.shape)}, [{images}, {config.in_channels}, {height}, {width}] is "
            "needed: as many pictures as latents"
        )
    if any(not 0 <= a - b < config.latent_cell for a, b in zip((height, width), picture.shape[-2:], strict=True)):
        raise ValueError(
            f"the picture is {picture.shape[-1]} x {picture.shape[-2]}, its latent decodes to {width} x {height}: give "
            "the picture as it was decoded, and the latent it was decoded from"
        )
    if not all_finite(picture):
        raise ValueError("the picture holds NaN or infinite values: the step that made it failed")


def _check_mask(mask: Tensor, picture: Tensor) -> None:
    images, _, height, width = picture.shape
    if mask.ndim != 4 or mask.shape[0] not in (1, images) or tuple(mask.shape[1:]) != (1, height, width):
        raise ValueError(
            f"the mask has shape {list(mask.shape)}, [1 or {images}, 1, {height}, {width}] is needed: one value for "
            "every pixel of the picture"
        )
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError("the mask holds values outside 0 to 1: 0 keeps the picture, 1 draws it again")
