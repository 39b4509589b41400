"""The distilled student's noise levels, and the undistilled teacher's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pid_core import DISTILLED_SIGMAS, distilled_sigmas
from pid_core.sampling.predict import x0_from_velocity
from pid_core.sampling.schedule import flow_shift, shift_sigmas, undistilled_sigmas


def test_literals():
    assert DISTILLED_SIGMAS == (0.999, 0.866, 0.634, 0.342, 0.0)
    assert torch.equal(distilled_sigmas(4), torch.tensor([0.999, 0.866, 0.634, 0.342, 0.0]))
    assert torch.equal(distilled_sigmas(), distilled_sigmas(4))


def test_one_step_starts_at_pure_noise():
    assert distilled_sigmas(1).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("steps", [0, -1, 5, 1000, 2.5, 2.0])
def test_other_counts_are_refused_in_one_line(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}, but 4-step") as caught:
        distilled_sigmas(steps)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_float32_whatever_the_default(steps):
    """Other packs in one process may change the default dtype."""
    torch.set_default_dtype(torch.float64)
    try:
        sigmas = distilled_sigmas(steps)
    finally:
        torch.set_default_dtype(torch.float32)
    assert sigmas.dtype == torch.float32
    assert torch.equal(sigmas, distilled_sigmas(steps))
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()


def test_x0_is_worked_out_in_float64():
    generator = torch.Generator().manual_seed(0)
    x, velocity = torch.randn(2, 2, 3, 8, 8, generator=generator)
    t = distilled_sigmas(4)[0]
    expected = (x.double() - float(t) * velocity.double()).float()
    assert torch.equal(x0_from_velocity(x, t, velocity), expected)
    per_image = x0_from_velocity(x, torch.tensor([0.2, 0.7]).view(2, 1, 1, 1), velocity)
    assert torch.equal(per_image[1], x0_from_velocity(x[1:], torch.tensor(0.7), velocity[1:])[0])


def reference_times(steps: int, height: int, width: int, base=6.0, side=2048) -> np.ndarray:
    """The reference's DPM-Solver++ times from its documents: an even grid in 1 - t, then the shift."""
    shift = base * math.sqrt(math.sqrt(height * width) / side)
    u = np.linspace(1.0, 0.001, steps + 1)
    q = 1.0 - u
    return np.flip(shift * q / (1.0 + (shift - 1.0) * q))


@pytest.mark.parametrize("steps", [1, 2, 25, 50, 33])
@pytest.mark.parametrize(("height", "width"), [(2048, 2048), (4096, 4096), (1536, 2688), (1024, 1024)])
def test_undistilled_times_are_the_references(steps, height, width):
    sigmas = undistilled_sigmas(steps, flow_shift("v1.5", height, width))
    assert sigmas.dtype == torch.float32
    assert np.allclose(sigmas.numpy(), reference_times(steps, height, width), rtol=0, atol=1e-7)
    assert sigmas[-1] == 0 and (sigmas.diff() < 0).all()


def test_the_shift_of_every_version():
    assert flow_shift("v1.5", 2048, 2048) == 6.0
    assert flow_shift("v1.5", 4096, 4096) == pytest.approx(6 * 2**0.5)
    assert flow_shift("v1.5", 1024, 4096) == 6.0
    assert flow_shift("v1", 1024, 1024) == 4.0 and flow_shift("v1", 4096, 4096) == 8.0
    assert flow_shift("PixelDiT", 512, 4096) == 4.0


@given(st.floats(0, 1), st.floats(0.1, 20), st.floats(0.1, 20))
def test_shifts_multiply(sigma, a, b):
    once = shift_sigmas(torch.tensor(sigma, dtype=torch.float64), a * b)
    twice = shift_sigmas(shift_sigmas(torch.tensor(sigma, dtype=torch.float64), a), b)
    assert torch.allclose(once, twice, atol=1e-12) and 0 <= once <= 1 + 1e-12


def test_no_undistilled_steps():
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        undistilled_sigmas(0, 6.0)
