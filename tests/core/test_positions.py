"""Position tables: their geometry, their cache, and their independence of global settings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core.model import positions
from pid_core.model.positions import image_rope, rotate, sine_cosine, text_rope, timestep_features

TABLES = (image_rope, text_rope, sine_cosine)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([8, 12, 16, 64, 72]), st.sampled_from([None, 4, 64, 128]))
def test_axes_swap_with_the_grid(rows, cols, head_dim, reference):
    """A transposed grid has the same angles with column and row exchanged."""
    for a, b in zip(
        image_rope(rows, cols, head_dim, reference=reference),
        image_rope(cols, rows, head_dim, reference=reference),
        strict=True,
    ):
        turned = b.view(cols, rows, -1, 2).transpose(0, 1).flip(-1)
        assert torch.equal(a.view(rows, cols, -1, 2), turned)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_rotation_keeps_lengths(rows, cols, seed):
    x = torch.randn(1, rows * cols, 2, 16, generator=torch.Generator().manual_seed(seed))
    turned = rotate(x, image_rope(rows, cols, 16, reference=64))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-5)
    assert torch.equal(turned[:, 0], x[:, 0])  # the first token stands at 0, 0


def test_rotation_is_the_same_where_complex_numbers_are_not_known(monkeypatch):
    x, rotation = torch.randn(2, 15, 3, 72), image_rope(3, 5, 72, reference=64)
    turned = rotate(x, rotation)
    monkeypatch.setattr(positions, "COMPLEX_DEVICES", ())
    assert torch.allclose(rotate(x, rotation), turned, atol=1e-6)


def test_the_grid_is_stretched_over_the_same_range_at_every_size():
    for count in (2, 7, 40):
        cos, _ = image_rope(1, count, 16, reference=None)
        assert torch.allclose(cos[-1, 0], torch.tensor(16.0).cos())


def test_a_fixed_theta_is_the_same_as_one_at_its_reference():
    for a, b in zip(image_rope(6, 6, 16, reference=6), image_rope(6, 6, 16, reference=None), strict=True):
        assert torch.equal(a, b)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 5000), st.integers(1, 40), st.sampled_from([2, 4, 8]))
def test_pixel_embedding_of_a_part_is_the_part_of_the_embedding(start, count, channels):
    assert torch.equal(sine_cosine(start, count, channels), sine_cosine(0, start + count, channels)[start:])


def test_tables_are_made_once_and_kept_within_a_bound():
    assert image_rope(3, 5, 16, reference=64)[0] is image_rope(3, 5, 16, reference=64)[0]
    for make in TABLES:
        assert 0 < make.cache_info().maxsize <= 64
    for length in range(1, 100):
        text_rope(length, 8)
    assert text_rope.cache_info().currsize <= text_rope.cache_info().maxsize


def test_a_table_made_in_inference_mode_serves_under_autograd():
    with torch.inference_mode():
        rotation = image_rope(3, 11, 16, reference=64)
        assert not rotation[0].is_inference()
    x = torch.randn(1, 33, 1, 16, requires_grad=True)
    rotate(x, rotation).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_float32_whatever_the_default(dtype):
    """Other packs in one process may change the default dtype."""
    arguments = [(image_rope, (13, 3, 16), {"reference": 64}), (text_rope, (17, 16), {}), (sine_cosine, (3, 19, 8), {})]
    expected = [make(*args, **options) for make, args, options in arguments]
    for make in TABLES:
        make.cache_clear()
    torch.set_default_dtype(dtype)
    try:
        made = [make(*args, **options) for make, args, options in arguments]
        features = timestep_features(torch.tensor([342.0]), 8)
    finally:
        torch.set_default_dtype(torch.float32)
        for make in TABLES:
            make.cache_clear()
    for a, b in zip(expected, made, strict=True):
        for x, y in zip(*(t if isinstance(t, tuple) else (t,) for t in (a, b)), strict=True):
            assert y.dtype == torch.float32 and torch.equal(x, y)
    assert features.dtype == torch.float32
