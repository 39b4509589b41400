"""The bundled model's training: what is trained is what the file decodes."""

import pytest
import torch
import torch.nn.functional as F

from pid_core import decode, load_network
from pid_core.model.cost import forward_work
from pid_core.windows.plan import plan_windows
from training.muon import orthogonal
from training.to_checkpoint import save, write
from training.upscaler import Upscaler


@pytest.fixture(scope="module")
def upscaler():
    torch.manual_seed(0)
    net = Upscaler(blocks=2)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net.requires_grad_(False)


@pytest.fixture(scope="module")
def file(upscaler, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    save(write(upscaler), path)
    return path


def small(seed, height=24, width=40):
    return 2 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize("sigma", [0.0, 0.03, 0.4])
def test_the_network_decodes_as_the_upscaler_upscales(upscaler, sigma):
    picture = small(1)
    wanted = upscaler(picture, torch.tensor([sigma])).clamp(-1, 1)
    caption = torch.zeros(1, 1, 4)
    out = decode(write(upscaler), F.pixel_unshuffle(picture, 2), caption, degrade_sigma=sigma, steps=1)
    assert wanted.std() > 0.05
    assert (out - wanted).abs().max() < 0.001  # an eighth of an 8-bit step


def test_four_steps_add_grain_of_the_learnt_level(upscaler):
    picture, net, caption = small(6), write(upscaler, grain=1.0), torch.zeros(1, 1, 4)
    latent, noises = F.pixel_unshuffle(picture, 2), torch.randn(3, 1, 3, 96, 160)
    one, four = (decode(net, latent, caption, steps=n, step_noise=noises[: n - 1], seed=1) for n in (1, 4))
    brightness = noises[-1].sum(1, keepdim=True) / 3**0.5
    brightness = brightness - F.interpolate(F.avg_pool2d(brightness, 4), scale_factor=4)
    inside = one.abs() < 0.99  # what left the range was clamped
    grain = (upscaler.strength(upscaler.features(picture)) * brightness).expand_as(one)
    assert grain.std() > 0.05
    assert (four - (one + grain).clamp(-1, 1))[inside].abs().max() < 0.003


def test_it_starts_as_a_linear_upscaler():
    coarse = 2 * torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(7)) - 1
    pictures = F.interpolate(coarse, scale_factor=16, mode="bicubic")
    quarters = F.interpolate(pictures, scale_factor=0.25, mode="bicubic", antialias=True)
    net = Upscaler(blocks=1).requires_grad_(False)
    net.start_linear(pictures, quarters)
    out, nearest = net(quarters, torch.zeros(8)), F.interpolate(quarters, scale_factor=4)
    assert (out - pictures).square().mean() < 0.1 * (nearest - pictures).square().mean()


def test_steps_of_kernels_are_orthogonal():
    matrices = torch.randn(2, 24, 90, generator=torch.Generator().manual_seed(8))
    for turned in (matrices, matrices.mT):
        sizes = torch.linalg.svdvals(orthogonal(turned))
        assert sizes.min() > 0.6 and sizes.max() < 1.3


def test_the_file_loads_and_differs_by_rounding_only(upscaler, file):
    picture = small(2)
    out = decode(load_network(file), F.pixel_unshuffle(picture, 2), steps=1)
    assert (out - upscaler(picture, torch.zeros(1)).clamp(-1, 1)).abs().mean() < 0.002


def test_a_pixel_does_not_depend_on_the_rest_of_the_picture(file):
    net, picture = load_network(file), small(3, 64, 64)
    other = picture.clone()
    other[..., 40:] = -1  # further off than the trunk sees
    near, far = (decode(net, F.pixel_unshuffle(x, 2), steps=1)[..., :64] for x in (picture, other))
    assert (near - far).abs().max() < 0.0005


def test_windows_change_nothing(file):
    net, latent = load_network(file), F.pixel_unshuffle(small(4, 64, 64), 2)
    whole, pieces = (decode(net, latent, steps=1, windows=w) for w in (None, plan_windows(256, 256, 160, 32, align=8)))
    assert (whole - pieces).abs().max() < 0.002


def test_attention_is_left_out_where_a_network_has_none(file):
    net = load_network(file)
    assert not net.config.attends and forward_work(net.config, 64, 64).attention == 0

    def forbidden(q, k, v):
        raise AssertionError("attention was worked out")

    net.attention = forbidden
    assert decode(net, F.pixel_unshuffle(small(5), 2), steps=4).isfinite().all()
