"""degrade_sigma by masks: where it holds, how it falls off around, and what it is drawn as."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pid_core.images.heat import heat
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.sigma_map import SigmaMap, SigmaMask

CELL = 32


def square(side=256, low=96, high=160):
    mask = torch.zeros(1, side, side)
    mask[:, low:high, low:high] = 1
    return mask


@given(
    cell=st.sampled_from([4, 8, 16, 32]),
    rows=st.integers(2, 12),
    cols=st.integers(2, 12),
    feather=st.integers(0, 400),
    sigma=st.floats(0, 1, width=32),
    base=st.floats(0, 1, width=32),
)
def test_inside_it_is_sigma_and_nowhere_out_of_bounds(cell, rows, cols, feather, sigma, base):
    mask = torch.zeros(1, rows, cols)
    mask[:, 0, :2] = 1
    values = SigmaMap((base,), (SigmaMask(mask, sigma, feather),)).on_cells(rows, cols, cell)
    assert values.shape == (1, 1, rows, cols)
    assert values[0, 0, 0, 0] == pytest.approx(sigma, abs=1e-6)
    assert values.min() >= min(sigma, base) - 1e-6 and values.max() <= max(sigma, base) + 1e-6
    reach = -(-feather // cell) + 1
    assert (values[0, 0, 1 + reach :] == base).all() and (values[0, 0, :, 2 + reach :] == base).all()


@pytest.mark.parametrize("feather", [64, 128, 256])
def test_it_falls_off_evenly_over_the_feather(feather):
    values = SigmaMap((0.0,), (SigmaMask(square(1024, 384, 640), 1.0, feather),)).on_cells(128, 128, 8)[0, 0]
    row = values[64, 80:]  # from the mask's right border on
    points = feather // 8
    assert (row[:-1] >= row[1:]).all() and row[0] > 0.99 - 4 / points and row[points] < 0.01
    assert (row[:-1] - row[1:]).max() < 2.2 / points  # no step more than twice the straight line's


@pytest.mark.parametrize("cell", [8, 32])
@pytest.mark.parametrize("feather", [8, 16, 24])
def test_a_short_feather_is_one(cell, feather):
    hard, soft = (
        SigmaMap((0.0,), (SigmaMask(square(256, 64, 128), 1.0, one),)).on_cells(256 // cell, 256 // cell, cell)
        for one in (0, feather)
    )
    row = slice(96 // cell, 96 // cell + 1), slice(128 // cell, None)  # from the mask's right border on
    assert hard[0, 0][row].max() == 0
    beyond = float(soft[0, 0][row].sum()) * cell  # pixels; along a straight line half of the feather
    assert 0.25 * feather <= beyond <= 0.75 * feather


def test_the_border_point_by_point():
    """32 pixels of 8: two points more are whole, then two means of three points fall off."""
    values = SigmaMap((0.0,), (SigmaMask(square(), 1.0, 32),)).on_cells(32, 32, 8)[0, 0]
    outside = torch.tensor([8 / 9, 6 / 9, 3 / 9, 1 / 9, 0, 0])
    for row in (values[16], values[:, 16]):
        assert torch.allclose(row[20:26], outside, atol=1e-6) and torch.allclose(row[6:12].flip(0), outside, atol=1e-6)


def test_a_mask_of_any_size_is_the_same():
    maps = [SigmaMap((0.1,), (SigmaMask(square(side, 3 * side // 8, 5 * side // 8), 0.5, 0),)) for side in (8, 64, 512)]
    first, *others = (one.on_cells(8, 8, CELL) for one in maps)
    assert all(torch.equal(first, other) for other in others)
    assert first.sum() == pytest.approx(64 * 0.1 + 4 * 0.4)


def test_each_picture_has_its_own():
    masks = torch.cat([square(), square(256, 0, 32)])
    whole = SigmaMap((0.0,), (SigmaMask(masks, 0.5, 0),)).for_pictures(3)
    values = whole.on_cells(8, 8, CELL)
    for i in range(3):
        assert torch.equal(whole.of_picture(i).on_cells(8, 8, CELL), values[i : i + 1])
    assert torch.equal(values[0], values[2]) and not torch.equal(values[0], values[1])
    with pytest.raises(ValueError, match="base has 2 values for 3 pictures"):
        SigmaMap((0.0, 0.1), ()).for_pictures(3)
    assert SigmaMap((0.0, 0.1), ()).for_pictures(2).of_picture(1).base == (0.1,)


def test_another_value_inside_the_last():
    two = SigmaMap((0.0,), (SigmaMask(square(), 0.3, 0), SigmaMask(square(256, 96, 128), 0.6, 0)))
    values = two.with_value(0.9).on_cells(8, 8, CELL)[0, 0]
    assert values[3, 3] == pytest.approx(0.9) and values[4, 4] == pytest.approx(0.3)
    assert two.on_cells(8, 8, CELL)[0, 0, 3, 3] == pytest.approx(0.6)


def test_the_latent_gets_it_in_its_own_cells():
    sigma_map = SigmaMap((0.0,), (SigmaMask(square(), 0.5, 64),))
    latent = torch.randn(1, 16, 8, 8)
    lq = prepare_lq(latent, "flux", sigma_map, seed=3)
    expected = sigma_map.on_cells(8, 8, CELL)
    assert torch.equal(lq.sigma, expected)
    assert torch.equal(lq.latent, prepare_lq(latent, "flux", expected, seed=3).latent)


def test_colours_rise_with_the_value_and_nothing_is_where_it_is_0():
    picture = torch.rand(4, 101, 3, generator=torch.Generator().manual_seed(1))
    values = torch.linspace(0, 1, 101).expand(4, -1)
    shown = heat(values)
    light = (shown * torch.tensor([0.299, 0.587, 0.114])).sum(-1)[0]
    assert (light.diff() > 0).all() and shown.min() >= 0 and shown.max() <= 1
    over = heat(values, picture)
    assert torch.equal(over[:, 0], picture[:, 0]) and not torch.equal(over[:, 50], picture[:, 50])
