"""What ComfyUI's samplers ask of our noise levels, on a device without float64."""

import pytest
import torch

from support.narrow_device import DEVICE, NarrowDevice


@pytest.fixture
def sampling(comfyui):
    return comfyui.module("nodes.comfy.sampling")


def test_the_schedule_of_an_undistilled_checkpoint(sampling):
    levels = sampling.UndistilledSampling("v1.5")
    sigmas = torch.linspace(1, 0, 26)
    expected = levels.adapt(sigmas, 1024, 1536)
    with NarrowDevice():
        got = levels.adapt(sigmas.to(DEVICE), 1024, 1536)
        assert got.device == DEVICE and torch.equal(got.cpu(), expected)


@pytest.mark.parametrize("kind", ["PiDSampling", "UndistilledSampling", "PixelDiTSampling"])
def test_a_step(sampling, kind):
    levels = getattr(sampling, kind)(*["v1.5"] * (kind == "UndistilledSampling"))
    generator = torch.Generator().manual_seed(1)
    x, velocity = torch.randn(2, 1, 3, 8, 8, generator=generator)
    sigma = torch.tensor([0.634])
    expected = levels.calculate_denoised(sigma, velocity, x)
    with NarrowDevice() as mode:
        got = levels.calculate_denoised(sigma.to(DEVICE), velocity.to(DEVICE), x.to(DEVICE)).cpu()
    assert mode.ran and (got - expected).abs().max() < 1e-6
