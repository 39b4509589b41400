"""Colour hold: casts go, detail stays; fidelity takes detail from the reference."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.colour import CASTS, detail, removed
from pid_core import NANO_PATH, decode, load_network
from pid_core.images.colour import COLOUR_HOLDS, hold_colour_
from pid_core.images.files import read_picture
from pid_core.latents.reference import crop_as_encoded, resize
from pid_core.latents.rgb import to_pixels, to_rgb_latent

# mean_deviation also lifts the bundled model's own contrast, which is 1 % low on this photo: 2 % of the energy.
DETAIL = {"mean_deviation": 0.03, "low_frequencies": 0.02}
HOLDS = [hold for hold in COLOUR_HOLDS if hold != "none"]


@pytest.fixture(scope="module")
def decoded(root):
    """The bundled model's decode of a piece of the bundled photo, and that piece: [1, 3, 256, 256], [1, 3, 64, 64]."""
    image = read_picture(root / "example_workflows" / "pidkit_photo.png").image[None, 40:104, 60:124]
    return decode(load_network(NANO_PATH), to_rgb_latent(image)), to_pixels(image)


@pytest.mark.parametrize(
    ("cast", "hold"),
    [
        ("tint", "mean_deviation"),
        ("tint", "low_frequencies"),
        ("whitening", "mean_deviation"),
        ("gradient", "low_frequencies"),
    ],
)
def test_nine_tenths_of_a_cast_go_and_detail_stays(decoded, cast, hold):
    clean, source = decoded
    shifted = CASTS[cast](clean)
    held = hold_colour_(shifted.clone(), source, hold)
    assert removed(clean, shifted, held) >= 0.9
    assert detail(held) / detail(clean) == pytest.approx(1, abs=DETAIL[hold])


@pytest.mark.parametrize("hold", HOLDS)
def test_an_image_without_a_cast_hardly_changes(decoded, hold):
    clean, source = decoded
    held = hold_colour_(clean.clone(), source, hold)
    assert (held - clean).abs().mean() < 0.01
    assert detail(held) / detail(clean) == pytest.approx(1, abs=DETAIL[hold])


def test_fidelity_leads_from_the_decode_to_the_reference(decoded):
    clean, source = decoded
    enlarged = torch.stack([resize(c, clean.shape[-2:]) for c in source[0]])[None]
    assert torch.equal(hold_colour_(clean.clone(), source, "none", 0.0), clean)
    whole = hold_colour_(clean.clone(), source, "low_frequencies", 1.0)
    assert torch.allclose(whole, enlarged, atol=1e-5)
    energies = [detail(hold_colour_(clean.clone(), source, "none", f)) for f in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert energies == sorted(energies, reverse=True) and energies[-1] < 0.7 * energies[0]
    half = hold_colour_(clean.clone(), source, "none", 0.5)
    full = hold_colour_(clean.clone(), source, "none", 1.0)
    assert torch.allclose(half, (clean + full) / 2, atol=1e-5)
    blocks = F.avg_pool2d(full, 64) - F.avg_pool2d(clean, 64)
    assert blocks.abs().max() < 0.03  # colours stay those of the decode


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 3),
    st.sampled_from(HOLDS),
    st.floats(0, 1),
    st.floats(-0.3, 0.3),
)
def test_an_offset_goes_at_any_size(height, width, batch, hold, fidelity, offset):
    """The reference is the image itself, so every setting gives it back whatever was added to it."""
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(batch)) * 2 - 1
    held = hold_colour_(image + offset, image, hold, fidelity)
    assert torch.allclose(held, image, atol=1e-4)


@pytest.mark.parametrize(("contrast", "gain"), [(0.1, 0.5), (0.8, 0.8), (1.25, 1.25), (6.0, 2.0)])
def test_contrast_is_stretched_and_squeezed_to_a_limit(contrast, gain):
    """Beyond it noise would be stretched too, or a picture would lose what it shows."""
    image = torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64).clone()
    held = hold_colour_(image.clone(), 0.1 + contrast * image, "mean_deviation")
    assert held.mean() == pytest.approx(0.1, abs=1e-3)
    assert float(held.std() / image.std()) == pytest.approx(gain, rel=1e-3)


def test_every_image_has_its_reference_or_all_share_one():
    image, reference = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 16, 16)
    together = hold_colour_(image.clone(), reference)
    shared = hold_colour_(image.clone(), reference[:1])
    for i in range(2):
        assert torch.equal(together[i : i + 1], hold_colour_(image[i : i + 1].clone(), reference[i : i + 1]))
        assert torch.equal(shared[i : i + 1], hold_colour_(image[i : i + 1].clone(), reference[:1]))


@pytest.mark.parametrize("hold", HOLDS)
def test_a_flat_picture_stays_flat(hold):
    held = hold_colour_(torch.full((1, 3, 64, 64), 0.3), torch.full((1, 3, 16, 16), -0.2), hold)
    assert torch.allclose(held, torch.full_like(held, -0.2), atol=1e-5)


def test_a_picture_that_the_vae_cropped_is_cropped_the_same():
    picture = torch.arange(21 * 35.0).view(1, 1, 21, 35).expand(1, 3, -1, -1)
    kept = crop_as_encoded(picture, 64, 128)  # 16 x 32 pixels were encoded
    assert kept.shape[-2:] == (16, 32) and kept[0, 0, 0, 0] == picture[0, 0, 2, 1]
    assert crop_as_encoded(picture, 42, 70) is picture
    held = hold_colour_(torch.zeros(1, 3, 64, 128), picture / 735, fidelity=1.0)
    enlarged = F.interpolate(kept / 735, size=(64, 128), mode="bicubic", antialias=True)
    assert torch.allclose(held, enlarged, atol=1e-5)


class Allocations(TorchDispatchMode):
    """The most elements that any one operation gave out in memory of its own."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize(("hold", "most"), [("mean_deviation", 0.1), ("low_frequencies", 1)])
def test_a_large_image_is_worked_on_one_channel_at_a_time(hold, most):
    image, reference = torch.rand(2, 3, 1024, 512), torch.rand(1, 3, 256, 128)
    with Allocations() as allocations:
        hold_colour_(image, reference, hold, 0.5 if most == 1 else 0.0)
    assert allocations.largest <= most * 1024 * 512


@pytest.mark.parametrize(
    ("image", "reference", "options", "words"),
    [
        ((1, 3, 8, 8), (1, 3, 8, 8), {"hold": "wavelet"}, "none, mean_deviation, low_frequencies"),
        ((1, 3, 8, 8), (1, 3, 8, 8), {"fidelity": 1.5}, "fidelity must be between 0 and 1"),
        ((1, 3, 8, 8), (1, 3, 8, 8), {"fidelity": float("nan")}, "fidelity must be between 0 and 1"),
        ((1, 3, 64, 64), (1, 3, 20, 40), {}, "reference is 40 x 20, the image 64 x 64"),
        ((2, 3, 8, 8), (3, 3, 8, 8), {}, "reference holds 3 images, there are 2"),
        ((1, 4, 8, 8), (1, 3, 8, 8), {}, "the image has shape"),
        ((1, 3, 8, 8), (1, 3, 0, 8), {}, "the reference has shape"),
    ],
)
def test_one_line_errors(image, reference, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        hold_colour_(torch.zeros(image), torch.zeros(reference), **options)
    assert "\n" not in str(caught.value)


def test_a_reference_with_nan():
    with pytest.raises(ValueError, match="reference holds NaN"):
        hold_colour_(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), float("nan")))
