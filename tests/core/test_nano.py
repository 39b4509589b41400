"""The bundled model restores: on the bundled photo, which it never saw, made four times smaller."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from pid_core import NANO_PATH, decode, degrade, load_network
from pid_core.images.psnr import psnr
from pid_core.latents.rgb import to_image, to_rgb_latent

PHOTO = Path(__file__).parents[2] / "example_workflows" / "pidkit_photo.png"


@pytest.fixture(scope="module")
def net():
    return load_network(NANO_PATH)


@pytest.fixture(scope="module")
def photo():
    """[1, 3, 128, 192] in [0, 1]."""
    return read(PHOTO)[:, :, :128]


@pytest.fixture(scope="module")
def small(photo):
    return shrink(photo)


def read(path):
    """[1, 3, H, W] in [0, 1]."""
    with Image.open(path) as file:
        return torch.from_numpy(np.array(file.convert("RGB"))).movedim(-1, 0)[None].float() / 255


def shrink(photo):
    return F.interpolate(photo, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1)


def mean_gradient(image):
    return float(image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean())


def restore(net, small, **options):
    return to_image(decode(net, to_rgb_latent(small.movedim(1, -1)), **options)).movedim(-1, 1)


def test_the_file_is_small_and_says_what_it_is(net):
    assert NANO_PATH.stat().st_size <= 8_000_000
    with safe_open(NANO_PATH, "pt") as file:
        assert file.metadata()["licence"] == "Apache-2.0"
    assert net.family == "rgb" and net.config.prediction == "x0" and net.default_caption is not None
    assert (net.config.window_min, net.config.window_max) == (128, 512)  # it was trained on small crops


def test_one_step_beats_bicubic(net, photo, small):
    plain = psnr(F.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1), photo, span=1)
    assert psnr(restore(net, small, steps=1), photo, span=1) > plain


def test_four_steps_are_as_sharp_as_photos_and_one_step_is_closer(net):
    # The photos are small, with more detail per pixel than those of benchmarks/restoration.py.
    gains, sharpness = [], []
    for path in sorted((Path(__file__).parent / "photos").glob("*.png")):
        photo = read(path)
        small = shrink(photo)
        one, four = (restore(net, small, steps=steps) for steps in (1, 4))
        plain = F.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1)
        gains.append([psnr(image, photo, span=1) - psnr(plain, photo, span=1) for image in (one, four)])
        sharpness.append([mean_gradient(image) / mean_gradient(photo) for image in (one, four)])
    one, four = np.mean(sharpness, axis=0)
    assert 0.8 <= four <= 1.1 and four > 1.15 * one
    one, four = np.mean(gains, axis=0)
    assert one >= 0.3 and four >= -0.5


def test_degrade_sigma_tells_noise_from_picture(net, photo, small):
    noisy = degrade(to_rgb_latent(small.movedim(1, -1)), 0.4, "rgb", seed=1)
    right, wrong = (
        psnr(to_image(decode(net, noisy, degrade_sigma=sigma)).movedim(-1, 1), photo, span=1) for sigma in (0.4, 0.0)
    )
    assert right > wrong + 3


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
def test_leaves_flat_grey_flat(net, level):
    out = restore(net, torch.full((1, 3, 32, 48), level))
    assert (out - out.mean()).abs().mean() < 2 / 255
    assert abs(float(out.mean()) - level) < 3 / 255
