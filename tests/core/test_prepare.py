"""Sizes a picture is encoded at, and the way back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core.images.framing import MAX_SIDE, Framing, Size, finish_image, plan_framing, prepare_image
from pid_core.latents.families import get_family

FAMILIES = st.sampled_from(["flux", "flux2", "sd3", "sdxl", "qwenimage", "rgb"])
SIDES = st.integers(1, 6000)
TARGETS = st.sampled_from(["2K", "4K", "factor"])
FACTORS = st.floats(0.5, 8)
FITS = st.sampled_from(["pad", "crop"])


def planned(height, width, family, target, factor, fit) -> Framing | None:
    """The framing, or None where the sizes are refused in one line."""
    try:
        return plan_framing(height, width, family, target=target, factor=factor, fit=fit)
    except ValueError as error:
        assert "\n" not in str(error) and ("at least" in str(error) or "at most" in str(error))
        return None


@settings(deadline=None)
@given(SIDES, SIDES, FAMILIES, TARGETS, FACTORS, FITS)
def test_sizes(height, width, family, target, factor, fit):
    framing = planned(height, width, family, target, factor, fit)
    if framing is None:
        return
    row = get_family(family)
    assert framing.source == (height, width) and framing.scale == row.sr_scale
    enlarge = factor if target == "factor" else {"2K": 2048, "4K": 4096}[target] / math.sqrt(height * width)
    if target != "factor":
        enlarge = min(enlarge, MAX_SIDE / max(height, width))
    for source, output, content, canvas in zip(
        framing.source, framing.output, framing.content, framing.canvas, strict=True
    ):
        assert output == max(1, round(source * enlarge))
        assert 0 <= content * row.sr_scale - output < row.sr_scale
        assert canvas > 0 and canvas % row.down == 0
        assert 0 <= (canvas - content if fit == "pad" else content - canvas) <= row.down
    assert max(framing.decoded) <= MAX_SIDE
    assert framing.decoded == framing.canvas.times(row.sr_scale)


@settings(deadline=None)
@given(st.integers(8, 400), st.integers(8, 400), st.sampled_from(["2K", "4K"]), FITS)
def test_a_named_target_has_its_area_at_any_aspect(height, width, target, fit):
    framing = planned(height, width, "flux", target, 4.0, fit)
    if framing is not None and max(height, width) <= 8 * min(height, width):
        assert math.prod(framing.output) == pytest.approx({"2K": 2048, "4K": 4096}[target] ** 2, rel=0.01)
        assert framing.output.width / framing.output.height == pytest.approx(width / height, rel=0.01)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from(["flux", "flux2", "rgb"]), FITS, st.sampled_from([2, 4, 7])
)
def test_there_and_back_gives_the_whole_picture(height, width, family, fit, factor):
    framing = planned(height, width, family, "factor", factor, fit)
    if framing is None:
        return
    image = torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(height))
    canvas = prepare_image(image, framing)
    assert canvas.shape == (2, *framing.canvas, 3)
    assert canvas.min() >= 0 and canvas.max() <= 1
    decoded = canvas.repeat_interleave(4, 1).repeat_interleave(4, 2)  # a PiD that enlarges plainly
    finished = finish_image(decoded, framing, image)
    assert finished.shape == (2, *framing.output, 3)
    whole = prepare_image(image, Framing(framing.source, framing.output, framing.content, 4))
    enlarged = whole.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : finished.shape[1], : finished.shape[2]]
    top, left = (max(0, 4 * n) for n in framing.offset)
    inside = slice(None), slice(top, top + decoded.shape[1]), slice(left, left + decoded.shape[2])
    assert torch.equal(finished[inside], enlarged[inside])
    if fit == "pad":
        assert torch.equal(finished, enlarged)
    else:  # what was cut off is the source, within what bicubic and nearest enlarging differ by
        assert (finished - enlarged).abs().max() < 1.2


@pytest.mark.parametrize(
    ("size", "factor", "output"),
    [((333, 333), 2, (666, 666)), ((37, 53), 4, (148, 212)), ((37, 53), 1.5, (56, 80)), ((1, 1), 3, (3, 3))],
)
def test_a_factor_is_met_to_the_pixel(size, factor, output):
    assert plan_framing(*size, "flux", target="factor", factor=factor).output == output


def test_a_very_wide_picture_is_as_long_as_is_possible():
    framing = plan_framing(10, 4000, "flux", target="2K")
    assert framing.output == (41, 16384)


@pytest.mark.parametrize("factor", [0.7, 1.3, 2.0, 5.1])
def test_a_picture_that_ends_within_a_pixel_keeps_its_place(factor):
    """Decoded by a PiD that enlarges exactly, a ramp comes back as a ramp over the asked size, neither moved nor
    stretched."""
    side = 61
    framing = plan_framing(side, side, "flux", target="factor", factor=factor)
    ramp = torch.linspace(0.1, 0.9, side).view(1, 1, side, 1).expand(1, side, side, 3)
    canvas = prepare_image(ramp, framing).movedim(-1, 1)
    decoded = torch.nn.functional.interpolate(canvas, scale_factor=4, mode="bilinear").movedim(1, -1)
    finished = finish_image(decoded, framing, ramp)[0, 0, :, 0]
    place = (torch.arange(len(finished)) + 0.5) / len(finished) * side - 0.5
    wanted = 0.1 + 0.8 * place / (side - 1)
    inner = slice(len(finished) // 4, -(len(finished) // 4))
    assert (finished - wanted)[inner].abs().max() < 0.8 / (side - 1) * 0.1


def test_transparency_is_enlarged_on_its_own():
    image = torch.rand(2, 19, 17, 4)
    image[..., 3] = 0.0
    image[:, :, 9:, 3] = 1.0
    for fit in ("pad", "crop"):
        framing = plan_framing(19, 17, "flux", target="factor", factor=3, fit=fit)
        decoded = torch.rand(2, *framing.decoded, 3)
        finished = finish_image(decoded, framing, image)
        assert finished.shape == (2, 57, 51, 4)
        assert torch.equal(finished[..., :3], finish_image(decoded, framing, image[..., :3]))
        alpha = finished[..., 3]
        assert alpha.min() == 0 and alpha.max() == 1
        assert (alpha[:, :, :24] < 0.1).all() and (alpha[:, :, 30:] > 0.9).all()


def test_a_picture_that_fits_is_left_alone():
    image = torch.rand(1, 64, 96, 3)
    framing = plan_framing(64, 96, "flux", target="factor", factor=4)
    assert framing.content == framing.canvas == framing.source == Size(64, 96)
    assert torch.allclose(prepare_image(image, framing), image, atol=1e-6)
    assert framing.describe() == "96 x 64 picture, PiD makes it 384 x 256"


def test_padding_mirrors_and_is_cut_off():
    ramp = torch.linspace(0, 1, 12).view(1, 1, 12, 1).expand(1, 8, 12, 3)
    framing = plan_framing(8, 12, "flux", target="factor", factor=4, fit="pad")
    assert framing.canvas == Size(8, 16) and framing.offset == (0, -2)
    canvas = prepare_image(ramp, framing)[0, 0, :, 0]
    assert torch.allclose(canvas[:4], ramp[0, 0, [1, 0, 0, 1], 0]) and torch.allclose(canvas[-2:], canvas[[-3, -4]])
    assert framing.describe() == "12 x 8 picture, padded to 16 x 8, PiD makes it 64 x 32, finished: 48 x 32"


def test_a_crop_is_filled_from_the_source():
    image = torch.full((1, 21, 16, 3), 0.5)
    image[:, :3], image[:, -3:] = 1.0, 0.0
    framing = plan_framing(21, 16, "flux", target="factor", factor=4, fit="crop")
    assert framing.canvas == Size(16, 16) and framing.offset == (2, 0)
    finished = finish_image(torch.full((1, 64, 64, 3), 0.25), framing, image)
    assert finished.shape == (1, 84, 64, 3)
    assert (finished[:, 8:72] == 0.25).all()
    assert finished[:, :8].min() > 0.9 and finished[:, -8:].max() < 0.1
    assert "cropped to 16 x 16" in framing.describe()


def test_the_source_is_not_changed():
    image, decoded = torch.rand(1, 19, 17, 4), torch.rand(1, 64, 64, 3)
    before = image.clone(), decoded.clone()
    framing = plan_framing(19, 17, "flux", target="factor", fit="crop")
    prepare_image(image, framing)
    finish_image(decoded, framing, image)
    assert torch.equal(image, before[0]) and torch.equal(decoded, before[1])


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        ((5, 100), {"fit": "crop", "target": "factor"}, "needs at least 8 pixels a side"),
        ((0, 10), {}, "empty"),
        ((10, 10), {"fit": "stretch"}, "pad, crop"),
        ((10, 10), {"target": "8K"}, "2K, 4K, factor"),
        ((10, 10), {"target": "factor", "factor": 0.0}, "above 0"),
        ((10, 10), {"target": "factor", "factor": float("nan")}, "above 0"),
        ((4096, 4096), {"target": "factor", "factor": 8}, "at most 16384"),
        ((1, 600), {"target": "factor", "factor": 30}, "at most 16384"),
    ],
)
def test_one_line_errors(size, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        plan_framing(*size, "flux", **options)
    assert "\n" not in str(caught.value)


def test_an_image_of_another_canvas():
    framing = plan_framing(20, 16, "flux", target="factor")
    with pytest.raises(ValueError, match="64 x 64.*64 x 96"):
        finish_image(torch.zeros(1, 64, 64, 3), framing, torch.zeros(1, 20, 16, 3))
    crop = plan_framing(20, 16, "flux", target="factor", fit="crop")
    with pytest.raises(ValueError, match="3 images were decoded from 2"):
        finish_image(torch.zeros(3, 64, 64, 3), crop, torch.zeros(2, 20, 16, 3))


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.sampled_from(["dinov2", "siglip"]), FITS)
def test_a_family_of_one_square_takes_any_picture_there_and_back(height, width, family, fit):
    try:
        framing = plan_framing(height, width, family, target="2K", fit=fit)
    except ValueError as error:
        assert fit == "crop" and max(height, width) > 7 * min(height, width) and "fit pad" in str(error)
        return
    row = get_family(family)
    assert framing.canvas == (row.square, row.square) and framing.decoded == (2048, 2048)
    assert (max if fit == "pad" else min)(framing.output) == 2048
    assert framing.output.width == pytest.approx(
        max(1, 2048 * width / (max if fit == "pad" else min)(height, width)), abs=0.51
    )
    assert "square" in framing.describe() or height / width == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_what_a_square_adds_or_takes_is_undone(fit):
    image = torch.linspace(0, 1, 60 * 40 * 3).reshape(1, 40, 60, 3)
    framing = plan_framing(40, 60, "siglip", target="2K", fit=fit)
    canvas = prepare_image(image, framing)
    assert canvas.shape == (1, 256, 256, 3)
    decoded = canvas.repeat_interleave(8, 1).repeat_interleave(8, 2)
    finished = finish_image(decoded, framing, image)
    assert finished.shape == (1, *framing.output, 3)
    assert framing.output == {"pad": (1365, 2048), "crop": (2048, 3072)}[fit]
    plain = torch.nn.functional.interpolate(image.movedim(-1, 1), size=framing.output, mode="bicubic").movedim(1, -1)
    assert (finished - plain).abs().mean() < 0.01


def test_the_aspect_is_said():
    assert plan_framing(683, 1024, "dinov2").describe() == (
        "1024 x 683 picture (1.5 : 1), resized to 512 x 342, padded to a square of 512 x 512, "
        "PiD makes it 2048 x 2048, finished: 2048 x 1366"
    )
    assert "683 x 1024 picture (1 : 1.5), resized to 256 x 384, cropped to a square of 256 x 256" in (
        plan_framing(1024, 683, "siglip", fit="crop").describe()
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"target": "4K"}, "dinov2 draws 2048 x 2048 pixels and no more: choose target 2K"),
        (
            {"target": "factor", "factor": 4.0},
            "683 x 1024 would become 2732 x 4096, and dinov2 draws 2048 x 2048 pixels and no more: choose target 2K, "
            "or a factor up to 2",
        ),
        (
            {"target": "factor", "factor": 2.0, "fit": "crop"},
            "683 x 1024 would become 1366 x 2048, and dinov2 draws 2048 x 2048 pixels and no less: choose target 2K or "
            "fit pad",
        ),
    ],
)
def test_what_a_square_does_not_hold_is_refused(options, line):
    with pytest.raises(ValueError) as error:
        plan_framing(1024, 683, "dinov2", **options)
    assert str(error.value) == line
    assert plan_framing(1024, 683, "dinov2", target="factor", factor=1.5).content == (384, 256)
