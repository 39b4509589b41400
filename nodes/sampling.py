"""PiDSampling: ComfyUI's view of the noise levels, so that its plain samplers run the reference's loop."""

from __future__ import annotations

import comfy.model_sampling
import torch

from ..pid_core.schedule import x0_from_velocity
from ..pid_core.sigma_table import sigma_table, tidy_sigmas


class PiDSampling(torch.nn.Module, comfy.model_sampling.CONST):
    """Flow sampling on the distilled student's levels (pid_core/sigma_table.py); timestep = 1000 * sigma."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sigmas", sigma_table(), persistent=False)

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

    def calculate_denoised(self, sigma, model_output, model_input):
        sigma = comfy.model_sampling.reshape_sigma(sigma, model_output.ndim)
        return x0_from_velocity(model_input, sigma, model_output)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        # the reference starts from unscaled noise although it calls it x at t = 0.999
        if max_denoise and not torch.any(latent_image):
            return noise.clone()
        return super().noise_scaling(sigma, noise, latent_image)


def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    """Wrapper around a whole sampling run: takes steps out of the schedule that are too small to take."""
    return executor(noise, latent_image, sampler, tidy_sigmas(sigmas), *args, **kwargs)
