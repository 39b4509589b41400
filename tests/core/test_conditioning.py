"""From a VAE's latent to the network's input."""

import pytest
import torch

from pid_core import LATENT_FAMILIES, degrade
from pid_core.latents.lq_input import LatentSpec, prepare_lq

FLUX = LatentSpec(16, 32, "flux")


def test_normalises_and_sizes():
    latent = torch.randn(2, 16, 3, 5)
    lq = prepare_lq(latent, "flux")
    assert torch.equal(lq.latent, LATENT_FAMILIES["flux"].normalise(latent))
    assert (lq.height, lq.width) == (96, 160)
    assert lq.sigma.tolist() == [0.0, 0.0]


def test_adds_the_familys_noise_or_keeps_what_is_there():
    latent = torch.randn(1, 4, 2, 2)
    clean = LATENT_FAMILIES["sdxl"].normalise(latent)
    noisy = prepare_lq(latent, sigma=0.4, seed=3)
    assert torch.equal(noisy.latent, degrade(clean, 0.4, "sdxl", 3))
    kept = prepare_lq(latent, sigma=0.4, seed=3, latent_noise="keep")
    assert torch.equal(kept.latent, clean)
    assert kept.sigma == noisy.sigma == torch.tensor([0.4])


@pytest.mark.parametrize(("family", "factor"), [("rgb", 0.6), ("flux", 0.6), ("sdxl", 0.84**0.5)])
def test_scales_a_noisy_pictures_latent_as_its_family_does_and_adds_nothing(family, factor):
    latent = torch.randn(2, LATENT_FAMILIES[family].channels, 2, 2)
    clean = LATENT_FAMILIES[family].normalise(latent)
    scaled = prepare_lq(latent, family, [0.4, 0.0], latent_noise="scale")
    assert torch.allclose(scaled.latent[0], factor * clean[0]) and torch.equal(scaled.latent[1], clean[1])
    assert torch.equal(scaled.sigma, torch.tensor([0.4, 0.0]))


def test_an_unknown_latent_noise_is_told():
    with pytest.raises(ValueError, match="choose one of add, scale, keep"):
        prepare_lq(torch.zeros(1, 4, 2, 2), latent_noise="none")


def test_auto_follows_the_decoder():
    assert prepare_lq(torch.zeros(1, 16, 2, 2), spec=FLUX).family.name == "flux"
    assert prepare_lq(torch.zeros(1, 128, 2, 2), spec=LatentSpec(128, 64)).family.name == "flux2"
    assert prepare_lq(torch.zeros(1, 12, 2, 2)).family.name == "rgb"


def test_aliases_are_the_same_family():
    assert prepare_lq(torch.zeros(1, 16, 2, 2), "zimage", spec=FLUX).family.name == "flux"


def test_a_single_frame_is_squeezed():
    assert prepare_lq(torch.zeros(1, 16, 1, 2, 3), "qwenimage").latent.shape == (1, 16, 2, 3)


def test_a_sigma_per_image():
    latent = torch.randn(3, 4, 2, 2)
    lq = prepare_lq(latent, sigma=[0.0, 0.3, 0.8], seed=3)
    assert torch.equal(lq.sigma, torch.tensor([0.0, 0.3, 0.8]))
    for i, sigma in enumerate((0.0, 0.3, 0.8)):
        assert torch.equal(lq.latent[i], prepare_lq(latent, sigma=sigma, seed=3).latent[i])
    assert prepare_lq(latent, sigma=[0.3]).sigma.tolist() == pytest.approx([0.3] * 3)


@pytest.mark.parametrize(
    ("latent", "options", "words"),
    [
        (torch.zeros(1, 16, 2, 2), {}, "can be of flux, sd3 or qwenimage"),
        (torch.zeros(1, 16, 2, 2), {"spec": LatentSpec(16, 32)}, "can be of flux, sd3 or qwenimage"),
        (torch.zeros(1, 16, 2, 2), {"family": "sd3", "spec": FLUX}, "made for flux"),
        (
            torch.zeros(1, 4, 2, 2),
            {"family": "sdxl", "spec": LatentSpec(16, 32)},
            "latents of sdxl have 4 channels, this checkpoint takes 16",
        ),
        (torch.zeros(1, 4, 2, 2), {"spec": FLUX}, "4 channels"),
        (torch.zeros(1, 5, 2, 2), {}, "5 channels"),
        (torch.zeros(16, 2, 2), {"family": "flux"}, "shape"),
        (torch.zeros(1, 16, 3, 2, 2), {"family": "flux"}, "3 frames"),
        (torch.zeros(1, 16, 0, 2), {"family": "flux"}, "empty"),
        (torch.full((1, 16, 2, 2), float("nan")), {"family": "flux"}, "NaN"),
        (torch.zeros(1, 16, 2, 2), {"family": "flux", "sigma": 1.2}, "between 0 and 1"),
        (torch.zeros(1, 16, 2, 2), {"family": "flux", "sigma": float("nan")}, "between 0 and 1"),
        (torch.zeros(2, 16, 2, 2), {"family": "flux", "sigma": [0.1] * 3}, "3 values for 2 images"),
        (torch.zeros(2, 16, 2, 2), {"family": "flux", "sigma": [0.1, -0.1]}, "between 0 and 1"),
        (torch.zeros(2, 16, 2, 2), {"family": "flux", "sigma": ["a", "b"]}, "one number per image, got \\['a', 'b'\\]"),
        (torch.zeros(1, 16, 2, 2), {"family": "chroma"}, "unknown latent family"),
    ],
)
def test_one_line_errors(latent, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        prepare_lq(latent, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("family", "channels"), [("dinov2", 768), ("siglip", 1152)])
def test_rae_latents_that_are_not_normalised_are_told(family, channels):
    latent = torch.randn(1, channels, 2, 2, generator=torch.Generator().manual_seed(0))
    assert prepare_lq(latent).warnings == ()
    (warning,) = prepare_lq(7 * latent).warnings
    assert f"about 7 large; {family} latents are about 1" in str(warning)
    assert prepare_lq(torch.full((1, 4, 2, 2), 0.1)).warnings == ()


@pytest.mark.parametrize(("spread", "told"), [(0.39, True), (0.41, False), (2.45, False), (2.55, True)])
def test_from_which_size_on_values_count_as_not_normalised(spread, told):
    latent = torch.randn(1, 768, 2, 2, generator=torch.Generator().manual_seed(0))
    latent *= spread / latent.square().mean().sqrt()
    warnings = prepare_lq(latent).warnings
    assert [f"about {spread:.1g} large" in str(line) for line in warnings] == [True] * told
