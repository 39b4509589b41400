"""The distilled student's noise levels."""

import pytest
import torch

from pid_core import DISTILLED_SIGMAS, distilled_sigmas
from pid_core.schedule import x0_from_velocity


def test_literals():
    assert DISTILLED_SIGMAS == (0.999, 0.866, 0.634, 0.342, 0.0)
    assert torch.equal(distilled_sigmas(4), torch.tensor([0.999, 0.866, 0.634, 0.342, 0.0]))
    assert torch.equal(distilled_sigmas(), distilled_sigmas(4))


def test_one_step_starts_at_pure_noise():
    assert distilled_sigmas(1).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("steps", [0, -1, 5, 1000, 2.5, 2.0])
def test_other_counts_are_refused_in_one_line(steps):
    with pytest.raises(ValueError, match=f"1 to 4 steps, got {steps}") as caught:
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
