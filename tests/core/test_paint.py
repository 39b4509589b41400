"""Paint of PiD Sigma Tuner's brush: as text, and as masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pid_core.images.paint import NONE, paint_masks, parse_paint
from pid_core.latents.sigma_map import SigmaMap

A, B = "0123456789abcdef", "fedcba9876543210"


def as_text(grid: torch.Tensor) -> str:
    """As js/brush.js writes it."""
    runs: list[list] = []
    for value in grid.flatten().tolist():
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    height, width = grid.shape
    return f"{width}x{height}:" + ".".join(f"{n}" if v < 0 else f"{n}@{round(100 * v)}" for v, n in runs)


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    values=st.lists(st.sampled_from([NONE, NONE, 0.0, 0.07, 0.4, 1.0]), min_size=81, max_size=81),
)
def test_text_is_read_as_it_was_painted(height, width, values):
    grid = torch.tensor(values[: height * width]).view(height, width)
    found = parse_paint(f"{A}={as_text(grid)};{B}=1x1:1@5")
    assert torch.equal(found[A], grid) and found[B].tolist() == [[pytest.approx(0.05)]]


def test_nothing_painted():
    assert parse_paint("") == {} and paint_masks([None, None]) == () == paint_masks([torch.full((2, 2), NONE)])


def test_each_value_is_a_mask_and_each_picture_has_its_own():
    grids = [torch.tensor([[0.4, NONE], [NONE, 0.2]]), None, torch.tensor([[NONE, NONE, 0.4, 0.4]])]
    masks = paint_masks(grids)
    assert [one.sigma for one in masks] == [0.2, 0.4] and all(len(one.mask) == 3 for one in masks)
    whole = SigmaMap((0.0, 0.1, 0.0), tuple(one._replace(feather=0) for one in masks), sets_base=True)
    values = whole.on_cells(2, 2, 32)[:, 0]
    expected = torch.tensor([[[0.4, 0.0], [0.0, 0.2]], [[0.1, 0.1], [0.1, 0.1]], [[0.0, 0.4], [0.0, 0.4]]])
    assert torch.allclose(values, expected)
    assert whole.with_value(0.9).on_cells(2, 2, 32)[1].eq(0.9).all()


@pytest.mark.parametrize(
    "text",
    [
        "no paint",
        f"{A}=2x2:3",
        f"{A}=2x2:4@101",
        f"{A}=2x2:4@",
        f"{A}=2x2:2@1@1.2",
        f"{A}=0x0:",
        f"{A}=9999x1:9999",
        f"{A}=2x2:99999999999999999999999",
        f"{A}=2x2:9223372036854775807.9223372036854775807.6",
    ],
)
def test_damaged_text_is_one_line(text):
    with pytest.raises(ValueError, match="painted is damaged, it holds .*: empty it, and paint again"):
        parse_paint(text)
