"""ComfyUI's view of the noise levels, so that its plain samplers run the reference's loops."""

from __future__ import annotations

import math
from functools import partial

import comfy.model_sampling
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP, get_all_wrappers

from ...pid_core import PiDConfig
from ...pid_core.model.chunks import by_rows
from ...pid_core.model.devices import to_device
from ...pid_core.model.guard import checked_together
from ...pid_core.sampling.predict import x0_from_velocity
from ...pid_core.sampling.schedule import PIXELDIT_SHIFT, TEACHER_START, flow_shift, shift_sigmas
from ...pid_core.sampling.sigma_table import sigma_table, tidy_sigmas
from .holding import POST_CFG, held, holds_alone
from .run_checks import check_run
from .student import nothing_like, wrapped_by_others

SEED = 3  # its place in outer_sample's arguments after the schedule
NOMINAL = 2048  # pixels a side that the teacher's table is made for; `adapt` moves it to the canvas


class FlowSampling(torch.nn.Module, comfy.model_sampling.CONST):
    """Flow noise levels, timestep = 1000 * sigma, over a rising table of 1000."""

    sigmas: torch.Tensor

    def __init__(self, table: torch.Tensor):
        super().__init__()
        self.register_buffer("sigmas", table, persistent=False)

    @property
    def sigma_min(self) -> torch.Tensor:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> torch.Tensor:
        return self.sigmas[-1]

    def timestep(self, sigma):
        return sigma * 1000.0

    def sigma(self, timestep):
        return torch.as_tensor(timestep / 1000.0).clamp(float(self.sigma_min), float(self.sigma_max))

    def percent_to_sigma(self, percent: float) -> float:
        return 1.0 - min(max(percent, 0.0), 1.0)

    def adapt(self, sigmas: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """A sampling run's schedule as it is to be run on a canvas of height x width pixels."""
        return sigmas

    def calculate_denoised(self, sigma, model_output, model_input):
        sigma = comfy.model_sampling.reshape_sigma(sigma, model_output.ndim)
        return x0_from_velocity(model_input, sigma, model_output)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        # the reference starts from unscaled noise although it calls it x at t = 0.999
        if max_denoise and not torch.any(latent_image):
            return noise
        return by_rows(partial(super().noise_scaling, sigma), noise, latent_image)


class PiDSampling(FlowSampling):
    """The distilled student's levels (pid_core/sampling/sigma_table.py)."""

    def __init__(self):
        super().__init__(sigma_table())

    def adapt(self, sigmas, height, width):
        # takes steps out that are too small to take
        return tidy_sigmas(sigmas)


class UndistilledSampling(FlowSampling):
    """The teacher's levels. Their shift depends on the canvas, which only a run knows: the table is for 2048 x 2048."""

    def __init__(self, version: str):
        self.version = version
        self.shift = flow_shift(version, NOMINAL, NOMINAL)
        even = TEACHER_START * torch.arange(1, 1001, dtype=torch.float64) / 1000
        super().__init__(shift_sigmas(even, self.shift).float())

    def percent_to_sigma(self, percent):
        return shift_sigmas(super().percent_to_sigma(percent), self.shift)

    def adapt(self, sigmas, height, width):
        # on the CPU, a handful of numbers: not every device has float64
        shifted = shift_sigmas(sigmas.cpu().double(), flow_shift(self.version, height, width) / self.shift)
        return to_device(shifted, sigmas.device, sigmas.dtype)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        # ComfyUI compares the first level with the table's, which is another canvas's
        first = shift_sigmas(TEACHER_START, flow_shift(self.version, *noise.shape[-2:]))
        return super().noise_scaling(sigma, noise, latent_image, max_denoise or bool(sigma > first - 1e-5))


class PixelDiTSampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """PixelDiT's levels, exactly as ComfyUI's own PixelDiT has them."""

    def __init__(self):
        super().__init__()
        self.set_parameters(shift=PIXELDIT_SHIFT)


def sampling_for(config: PiDConfig) -> comfy.model_sampling.CONST:
    """The model_sampling of a checkpoint."""
    if not config.has_latent:
        return PixelDiTSampling()
    return PiDSampling() if config.schedule == "distilled" else UndistilledSampling(config.version)


def sampler_seed(seed: int) -> int:
    """A seed that ComfyUI's samplers take: they add one to it on the CPU, and the largest of all has none above it.

    -1 is the same seed to PyTorch.
    """
    return -1 if seed == 2**64 - 1 else seed


def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    """Wrapper around a whole sampling run: the schedule becomes that of the canvas.

    Where the user put another model_sampling in (ModelSamplingSD3, ...), the schedule stays as it is.
    """
    check_run(executor.class_obj, sigmas)
    patcher = executor.class_obj.model_patcher
    sampling = patcher.get_model_object("model_sampling")
    if isinstance(sampling, FlowSampling):
        sigmas = sampling.adapt(sigmas, *noise.shape[-2:])
    if len(args) > SEED:
        args = (*args[:SEED], sampler_seed(args[SEED]), *args[SEED + 1 :])
    elif "seed" in kwargs:
        kwargs["seed"] = sampler_seed(kwargs["seed"])
    if not wrapped_by_others(patcher) and not torch.any(latent_image):  # its copy on the card would be as large as any
        latent_image = nothing_like(latent_image, patcher.load_device)
    return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


def predict_noise(executor, x, timestep, model_options=None, seed=None):
    """Wrapper around one prediction of a sampler: all its network calls are launched before one is waited for."""
    options, guider = model_options or {}, executor.class_obj

    def predict() -> torch.Tensor:
        if not _is_alone(executor, guider, options):
            return executor(x, timestep, options, seed)
        conds = [guider.conds.get("positive")]
        (out,) = comfy.samplers.calc_cond_batch(guider.inner_model, conds, x, timestep, options)
        return held(out, timestep, options)

    return checked_together(predict) if _may_repeat(executor, guider, options) else predict()


def _may_repeat(executor, guider, options: dict) -> bool:
    """Whether a prediction may be made twice: not where something of other nodes runs in it that counts its calls."""
    inside = (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL)
    foreign = _has_functions(options) or "model_function_wrapper" in options
    foreign = foreign or any(get_all_wrappers(kind, options, is_model_options=True) for kind in inside)
    return _is_plain(executor, guider) and not foreign


def _has_functions(options: dict) -> bool:
    """Whether nodes put functions around the guidance, other than holds."""
    return any(name.startswith("sampler_") and name != POST_CFG for name in options) or not holds_alone(options)


def _is_plain(executor, guider) -> bool:
    own = getattr(type(guider), "predict_noise", None) is comfy.samplers.CFGGuider.predict_noise
    return own and executor.idx + 1 == len(executor.wrappers)


def _is_alone(executor, guider, options: dict) -> bool:
    """Whether the prediction is the positive conditioning's and nothing else.

    ComfyUI would reach the same by way of a negative prediction of zeros, in canvases of which each may be a gigabyte.
    """
    changed = options.get("disable_cfg1_optimization") or _has_functions(options)
    return _is_plain(executor, guider) and math.isclose(guider.cfg, 1.0) and not changed
