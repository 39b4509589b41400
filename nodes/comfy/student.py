"""The distilled student's loop as one of ComfyUI's samplers: what `lcm` does, in fewer canvases."""

from __future__ import annotations

from collections.abc import Callable

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.utils import model_trange
from torch import Tensor

OURS = "pidkit"  # how the names of this pack's wrappers begin


class StudentSampler(comfy.samplers.Sampler):
    """`lcm` at cfg 1, for one run.

    ComfyUI's own holds the first noise, the noise and the prediction of the step before to the end: 800 MB each at
    8192 x 8192. Here the first noise is the sampler's, and what ComfyUI is given is `nothing_like` it.
    noise [B, 3, H, W]; noise_sampler(sigma, next sigma) draws that of the later steps, by default as `lcm` does.
    start [B, 3, H, W]: the picture that a run begins from whose first level is no pure noise; None: ComfyUI's.
    """

    def __init__(self, noise: Tensor, noise_sampler: Callable | None = None, start: Tensor | None = None):
        self._noise, self._start = [noise], [start]  # until the run begins
        self._noise_sampler = noise_sampler

    @torch.no_grad()
    def sample(
        self,
        model_wrap,
        sigmas: Tensor,
        extra_args: dict,
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        sampling, seed = model_wrap.inner_model.model_sampling, extra_args.get("seed")
        levels, highest = sigmas.cpu().tolist(), self.max_denoise(model_wrap, sigmas)  # else every step would wait
        # a copy: on a CPU it would else be the kept noise, and nodes may write into x
        x = self._noise.pop().to(noise.device, torch.float32, copy=True)
        draw = self._noise_sampler or default_noise_sampler(nothing_like(x, x.device), seed=seed)  # it holds on to it
        start = self._start.pop()
        begun = latent_image if start is None else start.to(x.device)
        x = sampling.noise_scaling(sigmas[0], x, begun, highest)
        del start, begun
        ones, steps = x.new_ones(x.shape[0]), len(levels) - 1
        for step in model_trange(steps, disable=disable_pbar):
            denoised = model_wrap(x, sigmas[step] * ones, model_options=extra_args["model_options"], seed=seed)
            if callback is not None:
                callback(step, denoised, x, steps)
            x = denoised
            del denoised
            if levels[step + 1] > 0:
                x = sampling.noise_scaling(sigmas[step + 1], draw(sigmas[step], sigmas[step + 1]), x)
        return sampling.inverse_noise_scaling(sigmas[-1], x)


def wrapped_by_others(patcher: ModelPatcher) -> bool:
    """Whether other nodes wrap its sampling: they may change the noise that ComfyUI hands on, or write to it."""
    places = patcher.wrappers, patcher.model_options.get("transformer_options", {}).get("wrappers", {})
    kinds = WrappersMP.OUTER_SAMPLE, WrappersMP.SAMPLER_SAMPLE
    return any(not str(key).startswith(OURS) for place in places for kind in kinds for key in place.get(kind, {}))


def nothing_like(canvas: Tensor, device: torch.device) -> Tensor:
    """Zeros of a canvas's shape on the device, which take no memory there."""
    return torch.zeros((), device=device).expand(canvas.shape)
