"""Hold: x0 keeps to a picture at every step, what is finer stays the network's."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core import NANO_PATH, decode, distilled_sigmas, load_network, plan_windows
from pid_core.images.files import read_picture
from pid_core.images.psnr import psnr
from pid_core.latents.reference import resize
from pid_core.latents.rgb import to_pixels, to_rgb_latent
from pid_core.sampling.hold import Hold
from pid_core.windows.plan import fuse_weights
from support.calls import velocity
from support.goldens import draw, spec, weights


def resized(pixels, *size):
    return torch.stack([torch.stack([resize(channel, size) for channel in image]) for image in pixels])


def agreement(pixels, small):
    return psnr(resized(pixels, *small.shape[-2:]), small)


def gradient(pixels):
    return float(pixels.diff(dim=-1).abs().mean() + pixels.diff(dim=-2).abs().mean())


@pytest.fixture(scope="module")
def nano():
    return load_network(NANO_PATH)


@pytest.fixture(scope="module")
def source(root):
    """A piece of the bundled photo, [1, 64, 64, 3] in [0, 1]."""
    return read_picture(root / "example_workflows" / "pidkit_photo.png").image[None, 40:104, 60:124]


@pytest.mark.parametrize(("sigma", "gain"), [(0.0, 6), (0.4, 15)])
def test_the_reduced_result_is_the_source_and_sharpness_stays(nano, source, sigma, gain):
    small, latent = to_pixels(source), to_rgb_latent(source)
    if sigma:
        latent = (1 - sigma) * latent + sigma * draw(4, list(latent.shape))
    plain = decode(nano, latent, degrade_sigma=sigma, steps=4)
    held = decode(nano, latent, degrade_sigma=sigma, steps=4, hold=Hold(small))
    half = decode(nano, latent, degrade_sigma=sigma, steps=4, hold=Hold(small, 0.5))
    assert agreement(held, small) >= agreement(plain, small) + gain
    assert agreement(plain, small) < agreement(half, small) < agreement(held, small)
    assert gradient(held) >= 0.98 * gradient(plain)


def test_every_step_is_held_by_what_noise_it_goes_on_at():
    net = load_network(weights(spec("flux_v1")))
    z, text, sigmas = draw(1, [1, 16, 1, 2]), draw(2, [1, 5, 24]), distilled_sigmas(4)
    draws, reference = [draw(20 + i, [1, 3, 32, 64]) for i in range(4)], draw(3, [1, 3, 8, 16]) / 3
    x = draws[0]
    with torch.no_grad():
        for i, (t, t_next) in enumerate(pairwise(sigmas), start=1):
            v = velocity(net, x, torch.full((1,), 1000.0) * t, text, z, torch.zeros(1))
            x0 = (x.double() - t.double() * v.double()).float()
            lack = reference - resized(x0, 8, 16)
            more = lack - resized(resized(lack, 32, 64), 8, 16)
            x0 = x0 + 0.7 * (1 - t_next) * resized(lack + more, 32, 64)
            x = x0 if t_next == 0 else (1 - t_next) * x0 + t_next * draws[i]
    out = decode(net, z, text, noise=draws[0], step_noise=draws[1:], hold=Hold(reference, 0.7))
    assert torch.allclose(out, x.clamp(-1, 1), atol=1e-4)


def test_with_windows_the_fused_x0_is_held(nano, source):
    small = to_pixels(source)
    plan = plan_windows(256, 256, 160, 48, align=8)
    assert plan.count > 1 and len(fuse_weights(plan, "pyramid")) == plan.count
    latent = to_rgb_latent(source).clamp(-1, 0.5)  # it lacks what is bright
    plain, held = (decode(nano, latent, steps=2, windows=plan, hold=hold) for hold in (None, Hold(small)))
    assert agreement(held, small) > agreement(plain, small) + 6


@pytest.mark.parametrize("blur", [5, 13, 25, 41])
def test_an_edge_overshoots_no_more_than_twice_what_bicubic_does(blur):
    """A soft x0 held to a hard edge: as steep as one of a fourth of its pixels can be, and hardly out of range."""
    hard = torch.full((1, 3, 16, 32), -0.5)
    hard[..., 15:] = 0.5
    bicubic = resized(hard, 64, 128)
    soft = F.avg_pool2d(F.pad(bicubic, (blur // 2,) * 4, mode="replicate"), blur, 1)
    held = Hold(hard).apply_(soft.clone(), 0.0)
    assert agreement(held, hard) > agreement(soft, hard) + 12
    assert held.diff(dim=-1).max() > 0.9 * bicubic.diff(dim=-1).max()
    assert 0 < held.abs().max() - 0.5 < 2.3 * (bicubic.abs().max() - 0.5)
    assert (held[..., :40].abs() - 0.5).abs().max() < 0.01  # no wave goes on beyond a few pixels


def test_a_noisy_references_noise_does_not_come_back(nano, source):
    clean, noise = to_pixels(source), 0.1
    noisy = clean + noise * draw(6, list(clean.shape))
    x0 = decode(nano, to_rgb_latent(source), steps=1)
    told, untold = (Hold(noisy, noise=n).apply_(x0.clone(), 0.0) for n in (noise, 0.0))
    assert agreement(untold, clean) < agreement(x0, clean) - 10
    assert agreement(told, clean) > agreement(x0, clean) - 3
    # a cast is no noise
    cast = Hold(noisy + 0.5, noise=noise).apply_(x0.clone(), 0.0)
    assert float((cast - x0).mean()) == pytest.approx(0.5, rel=0.15)


def test_each_image_is_held_to_its_own_or_all_to_one():
    x0, references = draw(1, [2, 3, 32, 32]), draw(2, [2, 3, 8, 8])
    both = Hold(references, noise=[0.0, 0.2]).apply_(x0.clone(), 0.1)
    for i, noise in enumerate((0.0, 0.2)):
        one = slice(i, i + 1)
        assert torch.equal(both[one], Hold(references[one], noise=noise).apply_(x0[one].clone(), 0.1))
    assert torch.equal(
        Hold(references[:1]).apply_(x0.clone(), 0.1),
        Hold(references[:1].repeat(2, 1, 1, 1)).apply_(x0.clone(), 0.1),
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 70), st.integers(4, 70), st.floats(0.2, 2))
def test_any_size(height, width, scale):
    """Another size than a fourth is compared where both are known; what agrees already stays."""
    x0 = torch.full((1, 3, height, width), 0.3)
    reference = torch.full((1, 3, max(1, round(height * scale)), max(1, round(width * scale))), -0.2)
    held = Hold(reference).apply_(x0.clone(), 0.0)
    assert torch.allclose(held, torch.full_like(held, -0.2), atol=1e-4)
    assert torch.equal(Hold(reference, 0.0).apply_(x0.clone(), 0.0), x0)
    assert torch.equal(Hold(reference).apply_(x0.clone(), 1.0), x0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hold(torch.zeros(1, 3, 8, 8), 1.5), "hold must be between 0 and 1, got 1.5"),
        (lambda: Hold(torch.zeros(1, 3, 8, 8), noise=-1), "noise must be 0 or more"),
        (lambda: Hold(torch.zeros(2, 3, 8, 8), noise=[0.1]), "one number or 2 of them"),
        (lambda: Hold(torch.zeros(1, 3, 8, 8)), "the reference is 8 x 8, the image 64 x 32: their shapes differ"),
        (lambda: Hold(torch.zeros(1, 1, 8, 16)), "pictures of 3 channels are needed"),
        (lambda: Hold(torch.full((1, 3, 8, 16), torch.nan)), "the reference holds NaN"),
        (lambda: Hold(torch.zeros(2, 3, 8, 16)), "holds 2 images, there are 1"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(make, message):
    net = load_network(weights(spec("flux_v1")))
    with pytest.raises(ValueError, match=message) as error:
        decode(net, draw(1, [1, 16, 1, 2]), draw(2, [1, 5, 24]), hold=make())
    assert "\n" not in str(error.value)
