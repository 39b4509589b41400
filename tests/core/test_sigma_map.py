"""degrade_sigma as a map: restored where there is noise, left alone where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pid_core import NANO_PATH, PiDNetwork, decode, degrade, load_network
from pid_core.latents.early_stop import CarriedNoise
from pid_core.latents.families import LATENT_FAMILIES, get_family
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.noise import scale_down
from pid_core.latents.rgb import to_rgb_latent
from pid_core.model.lq import sigma_of_patches
from pid_core.windows.plan import plan_windows
from support.sizes import SMALL
from support.small import seeded

SIGMA = 0.3


@pytest.fixture(scope="module")
def net():
    return seeded(PiDNetwork(SMALL).eval())


def small_latent(net, batch=2, rows=3, cols=5):
    shape = batch, net.config.latent_channels, rows, cols
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def caption_of(net):
    return torch.randn(1, 4, net.config.caption_width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("family", sorted({row.name for row in LATENT_FAMILIES.values()}))
def test_noise_of_a_constant_map_is_the_numbers_to_the_bit(family):
    latent = torch.randn(2, get_family(family).channels, 3, 5)
    constant = torch.full((2, 1, 3, 5), SIGMA)
    assert torch.equal(degrade(latent, constant, family, 7), degrade(latent, SIGMA, family, 7))
    assert torch.equal(scale_down(latent, constant[:1], family), scale_down(latent, SIGMA, family))
    five = degrade(latent[:, :, None], constant, family, 7)
    assert torch.equal(five[:, :, 0], degrade(latent, SIGMA, family, 7))


def test_a_cell_at_0_keeps_its_values():
    latent, sigma = torch.randn(1, 16, 4, 4), torch.zeros(1, 1, 4, 4)
    sigma[..., 2:] = 0.5
    noised = degrade(latent, sigma, "flux", 7)
    assert torch.equal(noised[..., :2], latent[..., :2])
    assert torch.equal(noised[..., 2:], degrade(latent, 0.5, "flux", 7)[..., 2:])


@pytest.mark.parametrize("plan", [None, (48, 16)], ids=["whole", "windows"])
def test_a_constant_map_draws_what_the_number_draws_to_the_bit(net, plan):
    latent, caption = small_latent(net), caption_of(net)
    height, width = net.config.output_size(3, 5)
    windows = plan and plan_windows(height, width, *plan, align=net.config.align)
    of_number, of_map = (
        decode(net, latent, caption, sigma, steps=2, windows=windows)
        for sigma in (torch.tensor([0.2, SIGMA]), torch.tensor([0.2, SIGMA]).view(2, 1, 1, 1).expand(2, 1, 3, 5))
    )
    assert torch.equal(of_number, of_map)


def test_the_plain_network_and_its_driver_in_chunks_agree(net):
    latent, caption = small_latent(net), caption_of(net)
    rows, cols = (side // net.config.patch_size for side in net.config.output_size(3, 5))
    sigma = sigma_of_patches(torch.rand(2, 1, 3, 5, generator=torch.Generator().manual_seed(5)), rows, cols)
    x = torch.randn(2, 3, *net.config.output_size(3, 5), generator=torch.Generator().manual_seed(3))
    features = net.encode_lq(latent, *x.shape[2:])
    given = x, torch.full((2,), 700.0), caption.expand(2, -1, -1)
    plain = net(*given, lq_features=features, degrade_sigma=sigma)  # under autograd
    with torch.no_grad():
        whole = net(*given, lq_features=features, degrade_sigma=sigma)
        net.driver.chunk_bytes, before = 1, net.driver.chunk_bytes
        in_chunks = net(*given, lq_features=features, degrade_sigma=sigma)
        net.driver.chunk_bytes = before
    assert torch.allclose(plain, whole, atol=1e-5) and torch.allclose(whole, in_chunks, atol=1e-5)
    with torch.no_grad():
        mean = net(*given, lq_features=features, degrade_sigma=sigma.mean(1))
    assert not torch.allclose(whole, mean, atol=1e-3)  # every patch has its own


def test_a_call_takes_a_value_for_each_image_or_each_patch_and_nothing_else(net):
    caption, x = caption_of(net), torch.zeros(1, 3, *net.config.output_size(3, 5))
    features = net.encode_lq(small_latent(net, 1), *x.shape[2:])

    def call(sigma):
        with torch.no_grad():
            return net(x, torch.full((1,), 700.0), caption, lq_features=features, degrade_sigma=sigma)

    of_each = call(torch.full(features.shape[:2], SIGMA))
    assert torch.equal(call(torch.tensor(SIGMA)), of_each) and torch.equal(call(torch.tensor([SIGMA])), of_each)
    with pytest.raises(ValueError, match=r"one each of \d+ patches; got \[1, 7\]"):
        call(torch.zeros(1, 7))
    with pytest.raises(ValueError, match="degrade_sigma is for 2 images, x holds 1"):
        call(torch.zeros(2))


@given(rows=st.integers(1, 9), cols=st.integers(1, 9), ratio=st.sampled_from([1, 2, 4]))
def test_a_patch_has_its_cells_value(rows, cols, ratio):
    cells = torch.arange(rows * cols, dtype=torch.float32).view(1, 1, rows, cols)
    found = sigma_of_patches(cells, ratio * rows, ratio * cols)
    assert torch.equal(found, cells.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3).flatten(1))


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        (torch.zeros(1, 1, 4, 5), r"is \[1, 1, 4, 5\]; 2 latents of 3 x 5 cells need \[2, 1, 3, 5\]"),
        (torch.zeros(3, 1, 3, 5), r"is \[3, 1, 3, 5\]; 2 latents"),
        (torch.zeros(2, 2, 3, 5), "2 latents of 3 x 5 cells need"),
        (torch.full((1, 1, 3, 5), 1.5), "between 0 and 1, the map holds 1.5 to 1.5"),
        (torch.full((1, 1, 3, 5), float("nan")), "between 0 and 1, the map holds nan to nan"),
        (torch.zeros(3, 5), "has 15 values for 2 images"),
    ],
)
def test_a_map_that_does_not_fit_is_one_line(net, sigma, words):
    with pytest.raises(ValueError, match=words):
        decode(net, small_latent(net), caption_of(net), sigma, steps=1)


def test_a_map_on_a_latent_that_carries_noise_is_told():
    sigma = torch.linspace(0, 1, 15).view(1, 1, 3, 5)
    lq = prepare_lq(torch.randn(1, 16, 3, 5), "flux", sigma, latent_noise="keep", carried=CarriedNoise("flux", 0.5))
    (warning,) = [one for one in lq.warnings if "stopped early" in str(one)]
    assert str(warning).startswith("degrade_sigma is 0 to 1, but the latent was stopped early")
    assert torch.equal(lq.sigma, sigma)


# What follows is measured with the bundled model, on photos it never saw.


@pytest.fixture(scope="module")
def nano():
    return load_network(NANO_PATH)


def psnr(a, b):
    return float(-10 * torch.log10((a - b).square().mean() / 4))


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("windows", [False, True], ids=["whole", "windows"])
def test_noise_in_one_half_is_taken_out_there_and_the_other_half_is_left(nano, name, windows):
    with Image.open(Path(__file__).parent / "photos" / f"{name}.png") as file:
        small = torch.from_numpy(np.array(file.convert("RGB"))).float()[None] / 255
    clean = to_rgb_latent(small)
    height, width = nano.config.output_size(*clean.shape[2:])
    plan = plan_windows(height, width, 128, 32, align=nano.config.align) if windows else None
    noisy = clean + SIGMA / (1 - SIGMA) * torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    cells = clean.shape[-1]
    mixed = torch.cat([noisy[..., : cells // 2], clean[..., cells // 2 :]], -1)

    def drawn(latent, level):
        lq = prepare_lq(latent, "rgb", level, latent_noise="scale")
        return decode(nano, lq.latent, None, lq.sigma, steps=1, windows=plan)

    def mapped(ramp):
        beyond = torch.arange(cells) + 0.5 - cells // 2
        sigma = SIGMA * ((ramp - beyond) / ramp).clamp(0, 1) if ramp else SIGMA * (beyond < 0)
        return drawn(mixed, sigma.expand(1, 1, clean.shape[2], -1))

    middle = width // 2
    left, right = slice(middle - 32), slice(middle + 64, None)
    border = slice(middle - 2, middle + 2)
    everywhere, nowhere, found = drawn(noisy, SIGMA), drawn(clean, 0.0), mapped(4)
    restored, reached = (psnr(picture[..., left], nowhere[..., left]) for picture in (found, everywhere))
    assert restored > reached - 0.3
    assert psnr(found[..., right], nowhere[..., right]) > 60

    def step(picture):
        return float(picture[..., border].diff(dim=-1).abs().mean())

    uniform = (step(everywhere) + step(nowhere)) / 2
    assert 0.8 < step(found) / uniform < 1.25
    assert step(mapped(0)) / uniform > 1.5  # a map that steps is seen
