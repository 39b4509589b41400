"""One run of the distilled student, with windows where it needs them: PiD Decode's and PiD Sigma Sweep's."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...pid_core.sampling.hold import Hold
from ...pid_core.sampling.start import sigmas_from, start_canvas
from ..comfy.holding import with_hold
from ..comfy.latent_tags import slice_latent
from ..comfy.noise import RowNoise, first_noise
from ..comfy.pid_models import with_checks
from ..comfy.sampling import UndistilledSampling, sampler_seed
from ..comfy.student import StudentSampler, nothing_like, wrapped_by_others
from ..comfy.window_handler import WindowSettings, add_windows
from .jobs import row_of
from .lq_conditioning import LQConditioning


def check_student(model) -> None:
    """Raises ValueError for a checkpoint that this loop is not made for."""
    if isinstance(model.get_model_object("model_sampling"), UndistilledSampling):
        raise ValueError(
            "this checkpoint is undistilled, and PiD Decode runs the distilled ones' 4 steps: use PiD Latent "
            "Conditioning and KSampler (dpmpp_2m, simple, 25 steps, cfg 5), or set schedule to distilled on PiD Loader "
            "if that is wrong"
        )


def with_windows(model, settings: WindowSettings, mode: str, node_id: str | None) -> ModelPatcher:
    """The model with this node's windows on it; without, with mode off, or auto where it has windows of its own."""
    taken = model.model_options.get("context_handler") is not None
    if mode == "off" or (mode == "auto" and taken):
        return with_checks(model)
    return add_windows(model, replace(settings, auto=mode == "auto"), (), node_id)[0]


def in_need(windowed: ModelPatcher) -> bool:
    """Whether memory was so short that the last run's windows are smaller than they ought to be."""
    return getattr(windowed.model_options.get("context_handler"), "in_need", False)


def windows_key(mode: str, settings: WindowSettings) -> tuple:
    """Equal where `with_windows` gives a model the same windows."""
    return {"off": (mode,), "auto": (mode, settings.overlap)}.get(mode, (mode, settings.size, settings.overlap))


def one_of(conditioning: LQConditioning, index: int) -> LQConditioning:
    """What belongs to one image of a batch."""
    lq = conditioning.lq._replace(
        latent=row_of(conditioning.lq.latent, index), sigma=row_of(conditioning.lq.sigma, index)
    )
    tags = {"lq_latent": lq.latent, "degrade_sigma": lq.sigma}
    positive, negative = (
        [[row_of(caption, index), extras | tags] for caption, extras in texts]
        for texts in (conditioning.positive, conditioning.negative)
    )
    return LQConditioning(positive, negative, slice_latent(conditioning.canvas, index), lq, conditioning.notes)


class Start(NamedTuple):
    """Where a run begins: at the noise of step `at`, from 1; behind the first from a picture [B or 1, 3, h, w]."""

    at: int = 1
    picture: Tensor | None = None

    def of(self, index: int | None) -> Start:
        """That of one image of a batch; None: of all."""
        return self if self.picture is None else Start(self.at, row_of(self.picture, index))

    def describe(self, steps: int) -> str:
        """A line for the node."""
        return f"begins at step {self.at} of {steps}, from a picture"


FROM_NOISE = Start()


def sample(
    model,
    conditioning: LQConditioning,
    steps: int,
    seed: int,
    callback=None,
    row_noise: RowNoise | None = None,
    start: Start = FROM_NOISE,
    hold: Hold | None = None,
) -> Tensor:
    """Run the distilled student on the canvas, as KSampler with lcm, simple and cfg 1 does: [B, 3, H, W], not clamped.

    From a later step on it is what SamplerCustomAdvanced does with the picture for its latent_image. Progress, previews
    (callback None) and interruption are ComfyUI's own. row_noise: where it is one of a batch.
    """
    canvas = conditioning.canvas["samples"]
    seed, sigmas = sampler_seed(seed), sigmas_from(start.at, steps)
    model = model if hold is None else with_hold(model, hold)
    picture = None if start.picture is None else start_canvas(start.picture, canvas.shape, canvas.device)
    noise = first_noise(model, tuple(canvas.shape), seed) if row_noise is None else row_noise.first
    if wrapped_by_others(model):
        sampler = comfy.samplers.ksampler("lcm", {} if row_noise is None else {"noise_sampler": row_noise.at_step})
        noise, canvas = noise.clone(), canvas if picture is None else picture
    else:
        sampler = StudentSampler(noise, None if row_noise is None else row_noise.at_step, picture)
        noise = nothing_like(canvas, model.load_device)
    del picture
    return comfy.sample.sample_custom(
        model,
        noise,
        1.0,
        sampler,
        sigmas,
        conditioning.positive,
        conditioning.negative,
        canvas,
        callback=callback or latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
