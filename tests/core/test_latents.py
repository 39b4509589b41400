"""The table of latent families, and noise in their forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core import LATENT_FAMILIES, degrade, detect_family
from pid_core.latents.checks import check_latent
from pid_core.latents.families import get_family
from pid_core.latents.noise import sigma_per_image

ROWS = sorted({row.name for row in LATENT_FAMILIES.values()})
ALIASES = {
    "zimage": "flux",
    "klein": "flux2",
    "ideogram4": "flux2",
    "ernie": "flux2",
    "krea2": "qwenimage",
    "anima": "qwenimage",
}
FLOW = ("flux", "flux2", "sd3", "qwenimage", "dinov2", "siglip", "rgb")
UNIT = st.floats(0, 1, width=32)


def latent(family, batch=1, height=3, width=2, seed=0):
    shape = (batch, LATENT_FAMILIES[family].channels, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "channels", "down", "noising"),
    [
        ("flux", 16, 8, "flow"),
        ("flux2", 128, 16, "flow"),
        ("sd3", 16, 8, "flow"),
        ("sdxl", 4, 8, "vp"),
        ("qwenimage", 16, 8, "flow"),
        ("dinov2", 768, 16, "flow"),
        ("siglip", 1152, 16, "flow"),
        ("rgb", 12, 2, "flow"),
    ],
)
def test_rows(name, channels, down, noising):
    row = LATENT_FAMILIES[name]
    assert (row.name, row.channels, row.down, row.noising) == (name, channels, down, noising)
    assert row.sr_scale == (8 if name == "siglip" else 4)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_its_familys_row(alias, name):
    assert LATENT_FAMILIES[alias] is LATENT_FAMILIES[name]
    assert alias in LATENT_FAMILIES[name].serves


@pytest.mark.parametrize(
    ("name", "raw", "normalised"),
    [
        ("flux", 1.0, 0.3611 * (1 - 0.1159)),
        ("sd3", 1.0, 1.5305 * (1 - 0.0609)),
        ("sdxl", 2.0, 0.26050),
        ("flux2", 1.5, 1.5),
        ("rgb", -0.7, -0.7),
    ],
)
def test_normalise_by_one_number(name, raw, normalised):
    row = LATENT_FAMILIES[name]
    out = row.normalise(torch.full((1, row.channels, 2, 2), raw))
    assert torch.allclose(out, torch.full_like(out, normalised), rtol=1e-6)


def test_normalise_per_channel():
    row = LATENT_FAMILIES["qwenimage"]
    out = row.normalise(torch.ones(1, 16, 1, 2, 2))
    assert out[0, 0, 0, 0, 0] == pytest.approx((1 + 0.7571) / 2.8184, rel=1e-6)
    assert out[0, 15, 0, 0, 0] == pytest.approx((1 + 0.2921) / 1.9160, rel=1e-6)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.sampled_from(ROWS), st.integers(0, 2**32 - 1))
def test_denormalise_undoes_normalise(name, seed):
    row, raw = LATENT_FAMILIES[name], 3 * latent(name, seed=seed)
    assert torch.allclose(row.denormalise(row.normalise(raw)), raw, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in ROWS if LATENT_FAMILIES[n].channels != 16])
def test_detects_the_only_family(name):
    assert detect_family(latent(name)) == name
    assert detect_family(latent(name)[:, :, None]) == name


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 16, 2, 2), "flux, sd3 or qwenimage"),
        ((1, 5, 2, 2), "16 (flux), 128 (flux2)"),
        ((1, 32, 2, 2), "32 channels"),
        ((16, 2, 2), "[16, 2, 2]"),
    ],
)
def test_cannot_detect(shape, words):
    with pytest.raises(ValueError) as caught:
        detect_family(torch.zeros(shape))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.sampled_from(FLOW), UNIT, st.integers(0, 2**63 - 1))
def test_flow_noise(name, sigma, seed):
    z = latent(name)
    eps = degrade(z, 1.0, name, seed)
    assert torch.allclose(degrade(z, sigma, name, seed), (1 - sigma) * z + sigma * eps, atol=1e-5)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(UNIT, st.integers(0, 2**63 - 1))
def test_variance_preserving_noise_for_sdxl(sigma, seed):
    z = latent("sdxl")
    eps = degrade(z, 1.0, "sdxl", seed)
    assert torch.allclose(degrade(z, sigma, "sdxl", seed), (1 - sigma**2) ** 0.5 * z + sigma * eps, atol=1e-5)


@pytest.mark.parametrize("name", ["flux", "sdxl"])
def test_the_pattern_is_the_same_at_every_sigma(name):
    z = latent(name)
    patterns = []
    for sigma in (0.05, 0.4, 0.8):
        keep = (1 - sigma**2) ** 0.5 if name == "sdxl" else 1 - sigma
        patterns.append((degrade(z, sigma, name, 7) - keep * z) / sigma)
    assert torch.allclose(patterns[0], patterns[1], atol=1e-4) and torch.allclose(patterns[1], patterns[2], atol=1e-4)
    assert (patterns[0] - degrade(z, 1.0, name, 8)).abs().max() > 0.5  # another seed, another pattern


def test_sigma_zero_leaves_the_latent_untouched():
    z = latent("flux", batch=2)
    z[0, 0, 0, 0] = -0.0
    assert torch.equal(degrade(z, 0.0, "flux", 1), z)
    assert torch.equal(degrade(z.half(), 0, "flux", 1), z.half())
    mixed = degrade(z, [0.0, 0.5], "flux", 1)
    assert torch.equal(mixed[0], z[0]) and not torch.equal(mixed[1], z[1])


def test_degrade_keeps_shape_dtype_input_and_the_global_generator():
    z = latent("flux", batch=2).to(torch.bfloat16)
    before, state = z.clone(), torch.get_rng_state()
    out = degrade(z, torch.tensor([0.3, 0.6]), "zimage", 5)
    assert out.shape == z.shape and out.dtype == z.dtype
    assert torch.equal(z, before) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(degrade(z, [0.3, 0.6], "flux", 5), out)


def test_each_image_gets_noise_of_its_own():
    z = torch.zeros(2, 16, 4, 4)
    noisy = degrade(z, 0.5, "flux", 0)
    assert not torch.equal(noisy[0], noisy[1])


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        (-0.01, "between 0 and 1, got -0.01"),
        (1.001, "between 0 and 1, got 1.001"),
        (float("nan"), "between 0 and 1, got nan"),
        (float("inf"), "between 0 and 1, got inf"),
        ([0.1, 2.0], "between 0 and 1, got 0.1, 2"),
        ([0.1, 0.2, 0.3], "3 values for 2 images"),
        ([], "0 values for 2 images"),
    ],
)
def test_bad_sigma_is_one_line(sigma, words):
    for call in (lambda: sigma_per_image(sigma, 2), lambda: degrade(torch.zeros(2, 4, 1, 1), sigma, "sdxl", 0)):
        with pytest.raises(ValueError) as caught:
            call()
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_family_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown latent family 'wan'; choose one of flux, zimage, flux2"):
        get_family("wan")
    with pytest.raises(ValueError, match="unknown latent family"):
        degrade(torch.zeros(1, 16, 2, 2), 0.5, "wan", 0)


def test_check_latent_takes_a_single_frame():
    z = latent("qwenimage")
    assert check_latent(z, 16) is z
    assert torch.equal(check_latent(z[:, :, None], 16), z)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.zeros(1, 16, 5, 2, 2), "a video of 5 frames"),
        (torch.zeros(16, 2, 2), "[16, 2, 2]"),
        (torch.zeros(1, 4, 2, 2), "4 channels, sdxl; this checkpoint takes 16, flux, sd3 or qwenimage"),
        (torch.zeros(1, 7, 2, 2), "7 channels, of no family"),
        (torch.zeros(0, 16, 2, 2), "empty"),
        (torch.zeros(1, 16, 0, 2), "empty"),
        (torch.full((1, 16, 2, 2), float("nan")), "64 NaN or infinite values"),
        (torch.full((1, 16, 1, 1), float("inf")), "16 NaN or infinite values"),
    ],
)
def test_bad_latents_are_one_line(bad, words):
    with pytest.raises(ValueError) as caught:
        check_latent(bad, 16)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_no_memory_is_not_said_to_be_a_wrong_sigma(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("pid_core.latents.noise.to_device", full)
    with pytest.raises(torch.OutOfMemoryError):
        sigma_per_image([0.1, 0.3], 2)
