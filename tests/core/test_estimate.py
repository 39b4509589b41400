"""More noise, blur and JPEG give a higher estimate, and so a higher suggestion; texture does not."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pid_core import NANO_PATH, load_network
from pid_core.images.blur import gaussian
from pid_core.images.quality import SHARP, Quality, estimate_quality
from pid_core.images.quality import suggest_sigma as suggest


def suggest_sigma(quality, invents=True):
    return suggest(quality, invents=invents)


@pytest.fixture(scope="module")
def photos(root) -> list[torch.Tensor]:
    """The bundled photo and parts of it, [H, W, 3] in [0, 1]."""
    with Image.open(root / "example_workflows" / "pidkit_photo.png") as file:
        photo = torch.from_numpy(np.array(file.convert("RGB"))).float() / 255
    return [photo, photo[:96], photo[:, 60:], photo.flip(1)[24:, :150]]


def blurred(photo, sigma):
    return torch.stack([gaussian(photo[..., c], sigma) for c in range(3)], -1)


def noisy(photo, sigma, seed=0):
    return (photo + sigma * torch.randn(photo.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


def rises(values, by=0.0):
    return all(b >= a + by for a, b in itertools.pairwise(values))


def test_a_good_photo_needs_nothing(photos):
    for photo in photos:
        assert suggest_sigma(estimate_quality(photo)) <= 0.05


def test_blur_is_measured_in_pixels(photos):
    for photo in photos:
        found = [estimate_quality(blurred(photo, sigma)) for sigma in (0.5, 1, 1.5, 2, 3)]
        assert rises([q.blur for q in found], by=0.1)
        assert rises([suggest_sigma(q) for q in found])
        # the photo has some blur of its own
        assert found[3].blur == pytest.approx((2**2 + 0.8**2) ** 0.5, abs=0.25)


def test_noise_is_measured_in_levels(photos):
    for photo in photos:
        found = [estimate_quality(noisy(photo, sigma)) for sigma in (0, 0.01, 0.02, 0.05, 0.1, 0.2)]
        assert rises([q.noise for q in found], by=0.005)
        assert rises([suggest_sigma(q) for q in found])
        assert found[3].noise == pytest.approx(0.05, rel=0.15)


def as_jpeg(photo, quality):
    file = io.BytesIO()
    Image.fromarray((photo * 255).round().byte().numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).float() / 255


def test_jpeg_is_seen_by_its_blocks_and_is_no_noise(photos):
    for photo in photos:
        assert estimate_quality(photo).blocks < 0.1
        found = [estimate_quality(as_jpeg(photo, quality)) for quality in (80, 60, 40, 20)]
        assert rises([q.blocks for q in found], by=0.1) and max(q.noise for q in found) < 0.01
        assert [suggest(q, invents=False) for q in found[1:]] == [0.05] * 3
    drawn = torch.full((32, 32, 3), 0.4)
    drawn[8:24, 8:24] = 0.8
    assert estimate_quality(drawn).blocks == 0
    # the middle of a large picture is cut out along the grid
    large = as_jpeg(photos[0].repeat(8, 6, 1)[:1085, :1131], 40)
    assert estimate_quality(large).blocks > 0.5


def test_texture_is_not_noise():
    """It was: 0.05 was suggested, which smooths fur or stone by up to half a decibel."""
    for name in ("astronaut", "chelsea", "coffee"):
        with Image.open(Path(__file__).parent / "photos" / f"{name}.png") as file:
            whole = torch.from_numpy(np.array(file.convert("RGB"))).float() / 255
        for photo in (whole, whole[:64, :64]):
            assert suggest(estimate_quality(photo), invents=False) == 0
        assert suggest(estimate_quality(noisy(whole, 8 / 255)), invents=False) == pytest.approx(0.06, abs=0.011)


def test_blur_asks_nothing_of_a_model_that_cannot_invent(photos):
    soft, grainy = estimate_quality(blurred(photos[0], 2)), estimate_quality(noisy(photos[0], 0.1))
    assert suggest_sigma(soft) >= 0.4 and suggest_sigma(soft, invents=False) <= 0.05
    assert suggest_sigma(grainy, invents=False) > 0.1


@pytest.mark.parametrize(("levels", "sigma"), [(3, 0.0), (5, 0.04), (10, 0.07), (25, 0.16), (50, 0.28)])
def test_noise_asks_for_the_level_at_which_a_latents_noise_is_as_strong(levels, sigma):
    assert suggest_sigma(Quality(levels / 255, SHARP)) == pytest.approx(sigma)


def test_the_bundled_model_cannot_invent():
    assert not load_network(NANO_PATH).config.invents


def test_noise_does_not_hide_blur(photos):
    for photo in photos:
        soft = blurred(photo, 2)
        found = [suggest_sigma(estimate_quality(noisy(soft, sigma))) for sigma in (0, 0.01, 0.02, 0.05)]
        assert rises(found, by=-0.03) and min(found) >= 0.4


@given(st.floats(0.01, 0.15), st.floats(1.3, 2.0), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_more_noise_is_seen_at_every_level(photos, sigma, factor, seed):
    less, more = (estimate_quality(noisy(photos[0], s, seed)) for s in (sigma, sigma * factor))
    assert more.noise > less.noise


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_flat_image_is_a_good_one(value):
    assert estimate_quality(torch.full((64, 64, 3), value)) == Quality(0.0, SHARP)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (15, 15), (16, 16), (17, 2000), (1100, 1300)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size(size, channels):
    image = torch.rand(*size, channels, generator=torch.Generator().manual_seed(1))
    quality = estimate_quality(image)
    assert 0 <= quality.noise < 1 and 0 < quality.blur < 40
    assert 0 <= suggest_sigma(quality) <= 0.8


def test_what_is_not_finite_is_left_out():
    image = torch.rand(32, 32, 3)
    image[3, 4] = float("nan")
    assert 0 <= suggest_sigma(estimate_quality(image)) <= 0.8


def test_a_wrong_shape():
    with pytest.raises(ValueError, match=r"one image is \[H, W, 3\], this one has shape \[1, 32, 32, 3\]"):
        estimate_quality(torch.zeros(1, 32, 32, 3))


@given(st.floats(0, 1), st.floats(0.1, 40), st.floats(0, 9), st.booleans())
def test_a_suggestion_is_in_range_and_round(noise, blur, blocks, invents):
    sigma = suggest_sigma(Quality(noise, blur, blocks), invents)
    assert 0 <= sigma <= 0.8 and sigma == round(sigma, 2) and not 0 < sigma < 0.03
    for more in (Quality(noise + 0.1, blur, blocks), Quality(noise, blur + 0.5, blocks), Quality(noise, blur, 10)):
        assert suggest_sigma(more, invents) >= sigma
