"""A latent and its noise level tied to the text, and the canvas: for every node that starts a decode."""

from __future__ import annotations

from typing import Any, NamedTuple

import comfy.model_management
import node_helpers
import torch
from torch import Tensor

from ...pid_core.latents.lq_input import TRAINED_SIGMA, LatentSpec, LQInput, prepare_lq
from ...pid_core.latents.sigma_map import SigmaMap
from ...pid_core.log import log
from ..comfy.latent_tags import FAMILY, NOISE, read_tag
from ..comfy.model import PiDKitModel
from ..comfy.picture_size import CANVAS_KEY, picture_size
from ..comfy.pid_models import config_of
from ..comfy.remedies import explain
from .sigma_maps import fitted, stretched

NO_TEXT = "neither positive nor model is connected: connect a text to positive, or PiD Loader to model"


class LQConditioning(NamedTuple):
    """Both conditionings with the latent in them, the canvas (an empty LATENT of pixels), and the latent itself.

    notes: what was not done as asked.
    """

    positive: list
    negative: list
    canvas: dict
    lq: LQInput
    notes: tuple[str, ...] = ()


def condition(
    latent: dict,
    model=None,
    *,
    latent_format: str = "auto",
    sigma: float | list | SigmaMap = 0.0,
    latent_noise: str = "add",
    seed: int = 0,
    positive: list | None = None,
    negative: list | None = None,
) -> LQConditioning:
    """What PiD Latent Conditioning does, for every node that needs it. Raises ValueError in one line."""
    samples = latent["samples"]
    spec = None if model is None else _latent_spec(model)
    carried = read_tag(latent, NOISE)
    if latent_format == "auto" and carried is None:
        latent_format = _saved_family(latent, spec)
    level, notes = _level(sigma, model, samples, spec)
    lq = prepare_lq(samples, latent_format, level, latent_noise=latent_noise, seed=seed, spec=spec, carried=carried)
    if isinstance(sigma, SigmaMap):
        notes += tuple(stretched(sigma, lq.height, lq.width))
    notes += _ignored_text(model, [*(positive or ()), *(negative or ())])
    positive = positive or _own_caption(model)
    tags: dict[str, Any] = {"lq_latent": lq.latent, "degrade_sigma": lq.sigma}
    size, changed = picture_size(latent)
    notes += (changed,) if changed else ()
    if size is not None:
        lq = lq._replace(height=size.height * lq.family.sr_scale, width=size.width * lq.family.sr_scale)
        tags[CANVAS_KEY] = (lq.height, lq.width)
    device = comfy.model_management.intermediate_device()
    canvas = torch.zeros((lq.latent.shape[0], 3, lq.height, lq.width), device=device)
    return LQConditioning(
        node_helpers.conditioning_set_values(positive, tags),
        node_helpers.conditioning_set_values(negative or positive, tags),
        {"samples": canvas},
        lq,
        notes,
    )


def _level(sigma, model, samples: Tensor, spec: LatentSpec | None) -> tuple[Any, tuple[str, ...]]:
    """degrade_sigma as the model can take it, and lines for the node."""
    if not isinstance(sigma, SigmaMap):
        return sigma, ()
    if model is None or spec is None:
        raise ValueError("a sigma map needs the model it is for: connect PiD Loader to model")
    sigma, lines = fitted(sigma, len(samples))
    if isinstance(model.model, PiDKitModel):
        return sigma, tuple(lines)
    means = sigma.on_cells(*samples.shape[-2:], spec.cell).mean((1, 2, 3)).tolist()
    shown = ", ".join(f"{mean:.2f}" for mean in means)
    line = f"ComfyUI's own PiD knows no sigma map: it gets the mean, {shown}; load the file with PiD Loader"
    return means, (*lines, line)


def describe(conditioning: LQConditioning) -> list[str]:
    """Lines for the node: family and size, and warnings (logged too), such as a sigma above the trained range."""
    lq = conditioning.lq
    warnings, sigma = [*map(explain, lq.warnings), *conditioning.notes], float(lq.sigma.max())
    if sigma > TRAINED_SIGMA:
        warnings.append(f"degrade_sigma {sigma:g} is above {TRAINED_SIGMA:g}, the most PiD was trained with")
    for line in warnings:
        log.warning("%s", line)
    return [f"{lq.family.name} latent, {lq.width} x {lq.height} pixels", *warnings]


def _latent_spec(model) -> LatentSpec:
    """What our model or ComfyUI's own PiD says about the latents it takes."""
    config = config_of(model.model)
    if not config.has_latent:
        raise ValueError(
            "the model is PixelDiT, which draws from text alone and takes no latent: load a PiD checkpoint with "
            "PiD Loader, or connect the text and an empty canvas to the sampler without PiD Latent Conditioning"
        )
    return LatentSpec(config.latent_channels, config.latent_cell, config.family)


def _saved_family(latent: dict, spec: LatentSpec | None) -> str:
    """The family that PiD Load Latent found in the file, "auto" where there is none."""
    family = read_tag(latent, FAMILY) or "auto"
    made_for = spec.family if spec else None
    if family != "auto" and made_for not in (None, family):
        raise ValueError(
            f"the latent was saved as {family}, this checkpoint was made for {made_for}: choose a PiD file for "
            f"{family} in PiD Loader, or set latent_format to {made_for} if the latent's file is wrong"
        )
    return family


def _ignored_text(model, texts: list) -> tuple[str, ...]:
    """A line where the model will read its own caption instead of these texts (PiDKitModel.extra_conds)."""
    caption = getattr(model.model, "default_caption", None) if model is not None else None
    if caption is None:
        return ()
    others = {text.shape[-1] for text, _ in texts} - {caption.shape[-1]}
    return tuple(
        f"the text is {width} wide, this checkpoint takes {caption.shape[-1]}: its own caption is used instead"
        for width in sorted(others)
    )


def _own_caption(model) -> list:
    caption = getattr(model.model, "default_caption", None) if model is not None else None
    if caption is None:
        raise ValueError(
            "positive is not connected and the checkpoint brings no caption: connect PiD Caption to positive"
            if model is not None
            else NO_TEXT
        )
    return [[caption, {}]]
