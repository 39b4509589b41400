"""The level table gives evenly spaced schedulers the student's own lists."""

import pytest
import torch

from pid_core import DISTILLED_SIGMAS, distilled_sigmas
from pid_core.sampling.sigma_table import SIZE, sigma_table, tidy_sigmas


def simple(steps: int) -> torch.Tensor:
    """Evenly spaced indices from the top, as ComfyUI's "simple" scheduler reads them."""
    table = sigma_table()
    return torch.tensor([*(float(table[-(1 + int(i * SIZE / steps))]) for i in range(steps)), 0.0])


def test_four_and_two_steps_are_exact_and_three_nearly():
    assert torch.equal(simple(4), torch.tensor(DISTILLED_SIGMAS))
    assert torch.equal(simple(2), distilled_sigmas(2))
    assert torch.allclose(simple(3), distilled_sigmas(3), rtol=1e-6, atol=0)
    assert torch.equal(tidy_sigmas(simple(3)), distilled_sigmas(3))


@pytest.mark.parametrize("steps", range(1, 101))
def test_every_step_count_falls(steps):
    sigmas = simple(steps)
    assert (sigmas.diff() < 0).all()
    tidy = tidy_sigmas(sigmas)
    assert tidy[-1] == 0 and (tidy.diff() <= -1e-4).all()
    assert len(tidy) >= min(len(sigmas), 5)


def test_table_rises_within_its_range():
    table = sigma_table()
    assert table.shape == (SIZE,) and table.dtype == torch.float32
    assert (table.diff() >= 0).all()
    assert 0 < table[0] < 0.002


def test_tidy_leaves_good_schedules_alone():
    for steps in (2, 3, 4):
        assert torch.equal(tidy_sigmas(distilled_sigmas(steps)), distilled_sigmas(steps))
    partial = torch.tensor([0.999, 0.866])
    assert torch.equal(tidy_sigmas(partial), partial)


def test_tidy_takes_repeats_out_and_keeps_the_end():
    sigmas = torch.tensor([0.999, 0.866, 0.86599, 0.634, 0.63399])
    assert tidy_sigmas(sigmas).tolist() == pytest.approx([0.999, 0.866, 0.63399])


@pytest.mark.parametrize("first", [0.999, float("nan")])
def test_a_single_step_starts_at_one(first):
    assert tidy_sigmas(torch.tensor([first, 0.0])).tolist() == [1.0, 0.0]
    assert tidy_sigmas(torch.tensor([0.342, 0.0])).tolist() == pytest.approx([0.342, 0.0])
