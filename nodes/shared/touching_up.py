"""One run on a part of a finished picture, by ComfyUI's own inpainting: PiD Touch Up's."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import comfy.utils
import node_helpers
import torch.nn.functional as F
from torch import Tensor

from ...pid_core import distilled_sigmas
from ...pid_core.sampling.touch_up import Part
from ..comfy.noise import PartNoise
from ..comfy.picture_size import CANVAS_KEY
from ..comfy.pid_models import config_of
from ..comfy.sampling import sampler_seed
from ..comfy.window_handler import CORNER, INSIDE
from .lq_conditioning import LQConditioning
from .sigma_maps import SAME_SHAPE


def fitted_mask(mask: Tensor, images: int, height: int, width: int) -> tuple[Tensor, list[str]]:
    """A MASK [M, h, w] for pictures of height x width pixels, [1 or images, 1, height, width]; lines for the node."""
    lines, (count, rows, cols) = [], mask.shape
    if count not in (1, images):
        lines.append(f"mask holds {count} masks for {images} pictures: taken in turn")
        mask = mask[[i % count for i in range(images)]]
    mask = mask[:, None]
    if (rows, cols) != (height, width):
        stretched = abs(cols * height / (rows * width) - 1) > SAME_SHAPE
        change = "stretched to fit" if stretched else "scaled"
        lines.append(f"the mask is {cols} x {rows}, the picture {width} x {height}: {change}")
        mask = F.interpolate(mask, size=(height, width), mode="bilinear", antialias=True).clamp(0, 1)
    return mask, lines


def sample_part(
    model, conditioning: LQConditioning, part: Part, finished: Tensor, steps: int, seed: int, callback=None
) -> Tensor:
    """Draw a part of one picture again: [1, 3, h, w], of which what lies outside the part's mask is the picture.

    conditioning: of the whole picture. finished [1, 3, h, w] in [-1, 1]: the part as it is. The same as ComfyUI's
    Set Latent Noise Mask and KSampler (lcm, simple, cfg 1) on the whole picture, where the network sees no farther.
    """
    noise = PartNoise(model, tuple(conditioning.canvas["samples"].shape), sampler_seed(seed), part.window)
    positive, negative = (_cut(texts, conditioning, part, model) for texts in conditioning[:2])
    inside = part.inside.float()
    model = model.clone()
    model.model_options |= {INSIDE: part.inside, CORNER: (part.window.top, part.window.left)}
    return comfy.sample.sample_custom(
        model,
        noise.first,
        1.0,
        comfy.samplers.ksampler("lcm", {"noise_sampler": noise.at_step}),
        distilled_sigmas(steps),
        positive,
        negative,
        finished,
        noise_mask=inside,
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=sampler_seed(seed),
    )


def _cut(texts: list, conditioning: LQConditioning, part: Part, model) -> list:
    """A conditioning with the part of the latent, and of a map of its degrade_sigma."""
    cell, sigma = config_of(model.model).latent_cell, conditioning.lq.sigma
    tags = {
        "lq_latent": part.of_cells(conditioning.lq.latent, cell),
        "degrade_sigma": part.of_cells(sigma, cell) if sigma.ndim == 4 else sigma,
        CANVAS_KEY: part.size,
    }
    size = tuple(conditioning.canvas["samples"].shape[-2:])
    return [[text, _masked(options, part, size)] for text, options in node_helpers.conditioning_set_values(texts, tags)]


def _masked(options: dict, part: Part, size: tuple[int, int]) -> dict:
    """Options of a text with the part of its mask (Conditioning (Set Mask)), which ComfyUI stretches over a canvas."""
    mask = options.get("mask")
    if not isinstance(mask, Tensor):
        return options
    whole = F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]).float(), size, mode="bilinear")[:, 0]
    return options | {"mask": part.of_picture(whole)}
