"""Where to stop a generator, and the latent it leaves: against the reference's own forms, written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pid_core import LATENT_FAMILIES, degrade
from pid_core.latents.early_stop import CarriedNoise, generators, recommended_step, stop_early, undo_sampler_scaling
from pid_core.latents.lq_input import LatentSpec, prepare_lq

FLOW = torch.linspace(1, 0, 29)
KARRAS = torch.tensor([14.6, 6.0, 2.5, 0.9, 0.35, 0.1, 0.0])
NVIDIAS = {
    "flux": (24, 28),
    "sd3": (24, 28),
    "sdxl": (26, 30),
    "flux2": (46, 50),
    "qwenimage": (44, 50),
    "zimage": (46, 50),
}


@pytest.mark.parametrize("generator", NVIDIAS)
def test_nvidias_own_stops(generator):
    stop, steps = NVIDIAS[generator]
    assert recommended_step(generator, steps) == stop
    assert recommended_step(generator, 2 * steps) == 2 * stop


@pytest.mark.parametrize("generator", ["zimage_turbo", "flux2_klein"])
@pytest.mark.parametrize("steps", [1, 4, 8, 9])
def test_few_step_generators_run_to_the_end(generator, steps):
    made = stop_early(torch.linspace(1, 0, steps + 1), generator)
    assert made.step == steps and made.degrade_sigma == 0


@given(st.sampled_from(list(generators())), st.integers(1, 200))
def test_recommended_stops_keep_their_part_of_the_schedule(generator, steps):
    row, step = generators()[generator], recommended_step(generator, steps)
    assert 1 <= step <= steps
    assert step == 1 or abs(step / steps - row.stop / row.steps) <= 0.5 / steps + 1e-9


@pytest.mark.parametrize("step", [1, 24, 28])
def test_flow_schedules_are_cut_and_tell_their_level(step):
    made = stop_early(FLOW, "flux", step)
    assert torch.equal(made.sigmas, FLOW[: step + 1])
    assert (made.degrade_sigma, made.step, made.steps) == (float(FLOW[step]), step, 28)


def test_sdxls_level_is_that_of_the_variance_preserving_frame():
    made = stop_early(KARRAS, "sdxl", 4)
    assert made.degrade_sigma == pytest.approx(0.35 / math.sqrt(1 + 0.35**2))
    assert stop_early(KARRAS, "sdxl", 6).degrade_sigma == 0
    assert stop_early(KARRAS, "sdxl", 1).degrade_sigma < 1


@pytest.mark.parametrize("family", ["flux", "flux2", "sd3", "sdxl", "qwenimage"])
@pytest.mark.parametrize("sigma", [0.0, 0.15, 0.7])
def test_what_a_sampler_hands_back_becomes_the_references_noisy_latent(family, sigma):
    row = LATENT_FAMILIES[family]
    raw = torch.randn(1, row.channels, 3, 2, generator=torch.Generator().manual_seed(1))
    clean = row.normalise(raw)
    noisy = degrade(clean, sigma, family, seed=4)
    if family == "sdxl":  # z + s * eps, sigma in the sampler's own scale
        handed_back = row.denormalise(noisy / math.sqrt(1 - sigma**2))
    else:
        handed_back = row.denormalise(noisy / (1 - sigma))
    undone = undo_sampler_scaling(handed_back, sigma, family)
    assert torch.allclose(row.normalise(undone), noisy, atol=2e-5)
    made = prepare_lq(undone, family, sigma, latent_noise="keep", carried=CarriedNoise(family, sigma))
    assert torch.allclose(made.latent, noisy, atol=2e-5) and made.warnings == ()


def test_video_shaped_latents_keep_their_shape():
    assert undo_sampler_scaling(torch.zeros(1, 16, 1, 2, 2), 0.5, "qwenimage").shape == (1, 16, 1, 2, 2)


BAD = {
    "no step": (lambda: stop_early(FLOW, "flux", 0), "stop_step is 0, but the schedule has 28 steps: choose 1 to 28"),
    "past the end": (lambda: stop_early(FLOW, "flux", 29), "stop_step is 29, but the schedule has 28 steps"),
    "empty": (lambda: stop_early(torch.tensor([]), "flux"), "at least two noise levels, got shape [0]"),
    "rising": (lambda: stop_early(FLOW.flip(0), "flux"), "must fall from step to step"),
    "nan": (lambda: stop_early(torch.tensor([1.0, math.nan, 0]), "flux"), "must fall from step to step"),
    "of sdxl": (lambda: stop_early(KARRAS, "flux", 2), "at sigma 2.5; flux's never exceed 1"),
    "unknown": (lambda: stop_early(FLOW, "sd1"), "unknown generator 'sd1'"),
    "pure noise": (lambda: undo_sampler_scaling(torch.zeros(1, 16, 1, 1), 1.0, "flux"), "at 0 to below 1"),
    "channels": (
        lambda: undo_sampler_scaling(torch.zeros(1, 4, 1, 1), 0.2, "flux"),
        "4 channels, sdxl; those of flux have 16",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case):
    call, words = BAD[case]
    with pytest.raises(ValueError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


LATENT = torch.full((1, 16, 2, 2), 0.1)
CARRIED = CarriedNoise("flux", 0.25)


def test_adding_noise_to_a_latent_that_carries_some_is_told():
    (warning,) = prepare_lq(LATENT, "flux", 0.25, carried=CARRIED).warnings
    assert "already carries noise of level 0.25" in str(warning) and warning.latent_noise == "add"


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("latent_noise", ["add", "scale", "keep"])
def test_another_sigma_than_the_latent_carries_is_told(sigma, latent_noise):
    (warning,) = prepare_lq(LATENT, "flux", sigma, latent_noise=latent_noise, carried=CARRIED).warnings
    assert "0.25" in str(warning)
    assert prepare_lq(LATENT, "flux", 0.251, latent_noise="keep", carried=CARRIED).warnings == ()


def test_the_family_it_carries_decides_where_nothing_else_does():
    assert prepare_lq(LATENT, "auto", 0.25, latent_noise="keep", carried=CARRIED).family.name == "flux"
    spec = LatentSpec(16, 32)
    assert prepare_lq(LATENT, "auto", 0.25, latent_noise="keep", spec=spec, carried=CARRIED).family.name == "flux"


@pytest.mark.parametrize("options", [{"family": "sd3"}, {"spec": LatentSpec(16, 32, "qwenimage")}])
def test_a_family_other_than_the_latents_own(options):
    with pytest.raises(ValueError, match="stopped early as one of flux, but it is to be decoded as one of"):
        prepare_lq(LATENT, sigma=0.25, latent_noise="keep", carried=CARRIED, **options)
