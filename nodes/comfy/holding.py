"""Holds on a model: after every prediction x0 is held to a picture, whatever the sampler."""

from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...pid_core.sampling.hold import Hold

POST_CFG = "sampler_post_cfg_function"
CHECK = "pidkit_hold"


class HoldPatch:
    """A function for ComfyUI to call after the guidance."""

    def __init__(self, hold: Hold):
        self.hold = hold

    def __call__(self, args: dict) -> Tensor:
        x0 = args["denoised"]
        # changed in place, where nothing else that ComfyUI holds is the same tensor
        if any(x0 is args.get(name) for name in ("cond_denoised", "uncond_denoised", "input")):
            x0 = x0.clone()
        return self.hold.apply_(x0, _level_after(args["sigma"], args["model_options"]))


def with_hold(model: ModelPatcher, hold: Hold) -> ModelPatcher:
    """A clone that is held. What does not fit is said in one line when a run begins."""
    model = model.clone()
    model.set_model_sampler_post_cfg_function(HoldPatch(hold))

    def check(executor, noise, *args, **kwargs):
        hold.check(noise.shape)
        return executor(noise, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, CHECK, check)
    return model


def is_held(options: dict) -> bool:
    """Whether there is a hold among the functions after the guidance."""
    return any(isinstance(function, HoldPatch) for function in options.get(POST_CFG, ()))


def holds_alone(options: dict) -> bool:
    """Whether the functions after the guidance, if there are any, are all holds."""
    return all(isinstance(function, HoldPatch) for function in options.get(POST_CFG, ()))


def held(x0: Tensor, sigma: Tensor, options: dict) -> Tensor:
    """x0 after the holds of model options for which `holds_alone` is true."""
    for patch in options.get(POST_CFG, ()):
        x0 = patch({"denoised": x0, "sigma": sigma, "model_options": options})
    return x0


def _level_after(sigma: Tensor, options: dict) -> Tensor:
    """The noise level that the run goes on at: the schedule's next below this one, as a number on its device."""
    levels = options["transformer_options"]["sample_sigmas"].to(sigma.device)
    return torch.where(levels < sigma[0] * (1 - 1e-5), levels, 0.0).max()
