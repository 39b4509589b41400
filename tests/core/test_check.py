"""PiD Check's figures: each finds what it is for, and is not moved by what it is not for."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.colour import CASTS
from benchmarks.restoration import shrink
from pid_core import NANO_PATH, decode, load_network
from pid_core.images.agreement import agreement_of, check_source
from pid_core.images.blur import gaussian
from pid_core.images.check import check_picture
from pid_core.images.difference import ciede2000, lab_of
from pid_core.images.files import read_picture
from pid_core.images.seams import borders_of, measure_seams
from pid_core.images.sharpness import edge_steepness
from pid_core.images.speckles import find_speckles, remove_speckles
from pid_core.images.structure import CHANGED, heat_picture, structure_change
from pid_core.latents.rgb import to_image, to_rgb_latent
from pid_core.windows.plan import plan_windows

# Table 1 of Sharma, Wu and Dalal (2005): two colours and their difference.
PAIRS = """
50 2.6772 -79.7751 50 0 -82.7485 2.0425
50 3.1571 -77.2803 50 0 -82.7485 2.8615
50 2.8361 -74.0200 50 0 -82.7485 3.4412
50 -1.3802 -84.2814 50 0 -82.7485 1.0000
50 -1.1848 -84.8006 50 0 -82.7485 1.0000
50 -0.9009 -85.5211 50 0 -82.7485 1.0000
50 0 0 50 -1 2 2.3669
50 -1 2 50 0 0 2.3669
50 2.49 -0.001 50 -2.49 0.0009 7.1792
50 2.49 -0.001 50 -2.49 0.0010 7.1792
50 2.49 -0.001 50 -2.49 0.0011 7.2195
50 2.49 -0.001 50 -2.49 0.0012 7.2195
50 -0.001 2.49 50 0.0009 -2.49 4.8045
50 -0.001 2.49 50 0.0010 -2.49 4.8045
50 -0.001 2.49 50 0.0011 -2.49 4.7461
50 2.5 0 50 0 -2.5 4.3065
50 2.5 0 73 25 -18 27.1492
50 2.5 0 61 -5 29 22.8977
50 2.5 0 56 -27 -3 31.9030
50 2.5 0 58 24 15 19.4535
50 2.5 0 50 3.1736 0.5854 1.0000
50 2.5 0 50 3.2972 0 1.0000
50 2.5 0 50 1.8634 0.5757 1.0000
50 2.5 0 50 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def random(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def restored(root):
    """The bundled model's results of three small photos, [H, W, 3], and the photos."""
    net = load_network(NANO_PATH)
    photos = [read_picture(path).image for path in sorted((root / "tests/core/photos").glob("*.png"))]
    return [(to_image(decode(net, to_rgb_latent(photo[None]), steps=1))[0], photo) for photo in photos]


def reduced(image):
    """[H, W, 3] or [H, W], four times smaller."""
    if image.ndim == 2:
        return shrink(image[None, None])[0, 0]
    return shrink(image.movedim(-1, 0)[None])[0].movedim(0, -1)


def with_grain(image, level):
    return (image + level / 255 * torch.randn(image.shape, generator=random(1))).clamp(0, 1)


def eye(x, size=256):
    """A dark pupil in a light iris on skin with a slow gradient, its middle at column x: [H, W]."""
    down, across = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    away = torch.hypot(down - size / 2, across - float(x))
    skin = 0.5 + 0.2 * across / size
    iris = 0.15 * torch.sigmoid((24 - away) / 1.5)
    return skin + iris - 0.5 * torch.sigmoid((12 - away) / 1.5)


def test_the_published_differences_come_out():
    rows = torch.tensor([[float(v) for v in line.split()] for line in PAIRS.split("\n") if line], dtype=torch.float64)
    assert len(rows) == 34
    assert torch.allclose(ciede2000(rows[:, :3], rows[:, 3:6]), rows[:, 6], rtol=0, atol=5e-5)
    assert torch.allclose(ciede2000(rows[:, 3:6], rows[:, :3]), rows[:, 6], rtol=0, atol=5e-5)


def test_known_colours_have_their_lab():
    lab = lab_of(torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]]))
    expected = torch.tensor([[100, 0, 0], [53.23, 80.11, 67.22], [0, 0, 0]], dtype=torch.float64)
    assert torch.allclose(lab, expected, atol=0.02)


def test_a_cast_is_told_and_grain_is_none(restored):
    for result, source in restored:
        assert agreement_of(result, source).cast < 0.5
        assert agreement_of(with_grain(result, 15), source).cast < 0.8
        cast = CASTS["tint"](result.movedim(-1, 0)[None] * 2 - 1)[0].add(1).div(2).clamp(0, 1).movedim(0, -1)
        assert agreement_of(cast, source).cast > 5


@given(
    height=st.integers(1, 90), width=st.integers(1, 90), scale=st.floats(0.5, 6), grey=st.floats(0.2, 0.8),
)  # fmt: skip
@settings(max_examples=25)
def test_a_plain_picture_of_any_size_is_in_order(height, width, scale, grey):
    source = torch.full((height, width, 3), grey)
    result = torch.full((max(1, round(scale * height)), max(1, round(scale * width)), 3), grey)
    check, changed, speckles = check_picture(result, source, ([1, 8], [4]))
    assert check.close.agreement > 100 and check.close.cast < 1e-3 and math.isnan(check.sharpness)
    assert check.changed == 0 and check.place is None and speckles.number == 0 and check.seams.step == 0
    assert heat_picture(result, changed).shape == result.shape
    assert all(value is None or math.isfinite(value) for value in check.figures().values())


def test_agreement_is_the_reductions_distance(restored):
    result, source = restored[0]
    apart = agreement_of(result + 0.02, source + 0.0)
    assert apart.reduction == 4
    assert agreement_of(source, source).agreement == math.inf
    far = (torch.full_like(source, 0.5), torch.full_like(source, 0.6))
    assert agreement_of(
        F.interpolate(far[0].movedim(-1, 0)[None], scale_factor=3.5)[0].movedim(0, -1), far[1]
    ).agreement == (pytest.approx(20, abs=0.1))


@pytest.mark.parametrize(
    ("result", "source", "words"),
    [
        ((2, 64, 64, 3), (3, 16, 16, 3), "holds 3 images, there are 2"),
        ((1, 64, 128, 3), (1, 32, 32, 3), "32 x 32, the image 128 x 64"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(result, source, words):
    with pytest.raises(ValueError, match=words) as refused:
        check_source(torch.rand(result), torch.rand(source))
    assert "\n" not in str(refused.value)


def test_a_source_that_the_vae_cropped_fits():
    check_source(torch.rand(1, 992, 480, 3), torch.rand(1, 250, 127, 3))
    noise = torch.rand(3, 250, 127, generator=random(0))
    picture = torch.stack([10 * gaussian(channel - 0.5, 2.0) + 0.5 for channel in noise], -1).clamp(0, 1)
    part = picture[1:249, 3:123].movedim(-1, 0)[None]
    large = F.interpolate(part, scale_factor=4, mode="bicubic")[0].movedim(0, -1)
    assert agreement_of(large, picture).agreement > 40


@pytest.mark.parametrize("blur", [1.0, 2.0, 3.0])
def test_steepness_is_the_width_of_an_edge(blur):
    """Of a bicubic enlargement's edge the same, of one drawn steeper as many times as it is narrower."""
    step = (torch.arange(256) > 120).float().expand(256, 256) * 0.6 + 0.2
    ours, theirs = gaussian(step, blur), gaussian(step, 4.0)
    assert edge_steepness(ours, reduced(theirs)) == pytest.approx(4.0 / blur, rel=0.12)


def test_grain_texture_and_contrast_are_no_sharpness(restored):
    for result, source in restored:
        grey, small = result.mean(-1), source.mean(-1)
        plain = edge_steepness(grey, small)
        assert plain > 1.05
        assert edge_steepness(with_grain(result, 20).mean(-1), small) == pytest.approx(plain, rel=0.06)
        assert edge_steepness(0.8 * grey + 0.1, small) == pytest.approx(plain, rel=0.03)
        assert edge_steepness(gaussian(grey, 3.0), small) < 0.75 * plain


def test_a_moved_eye_is_found_and_where():
    source = reduced(eye(128))
    changed = structure_change(reduced(eye(140)), source)
    assert changed.max() > 0.8
    row, col = divmod(int(changed.argmax()), changed.shape[1])
    assert abs(4 * row - 128) < 40 and abs(4 * col - 134) < 40
    assert structure_change(reduced(eye(128)), source).max() < 1e-4


def test_refinement_is_no_change():
    """Grain, texture finer than the source shows, a cast and steeper edges."""
    plain, source = eye(128), reduced(eye(128))
    stripes = 0.1 * torch.sin(torch.arange(256) * 2 * math.pi / 3).expand(256, 256)
    for refined in (
        with_grain(plain, 25),
        plain + stripes,
        0.85 * plain + 0.1,
        plain + 0.3 * (plain - gaussian(plain, 2.0)),
    ):
        assert structure_change(reduced(refined), source).max() < CHANGED


def test_a_noisy_source_drawn_clean_is_no_change():
    source = with_grain(reduced(eye(128)), 15)
    assert structure_change(reduced(eye(128)), source).max() < CHANGED
    assert structure_change(reduced(eye(140)), source).max() > CHANGED


def test_a_feature_that_went_or_came_is_found():
    bare = 0.5 + 0.2 * torch.arange(256).expand(256, 256) / 256
    for ours, theirs in ((bare, eye(100)), (eye(100), bare)):
        assert structure_change(reduced(ours), reduced(theirs)).max() > 0.7


def test_the_photos_results_are_in_order_and_a_moved_piece_is_not(restored):
    for result, source in restored:
        check = check_picture(result, source).check
        assert check.changed == 0 and check.place is None and check.speckles == 0
    result, source = restored[0]
    moved = result.clone()
    moved[60:120, 72:132] = result[60:120, 60:120]
    check = check_picture(moved, source).check
    assert check.changed > 0 and 40 < check.place[0] < 140 and 40 < check.place[1] < 152


def speckled(image, number, seed=0):
    """Single pixels raised by 0.25 to 0.6, where there is room; and their places."""
    generator = random(seed)
    height, width = image.shape[:2]
    places = torch.stack([torch.randint(0, side, (number,), generator=generator) for side in (height, width)], 1)
    raised = 0.25 + 0.35 * torch.rand(number, generator=generator)
    room = image.mean(-1)[places[:, 0], places[:, 1]] + raised <= 1
    image = image.clone()
    image[places[room, 0], places[room, 1]] = (image[places[room, 0], places[room, 1]] + raised[room, None]).clamp(0, 1)
    return image, places[room]


def test_speckles_are_found_and_only_they_are_removed(restored):
    found = there = 0
    for result, source in restored:
        worn, places = speckled(result, 12)
        speckles = find_speckles(worn.mean(-1), source.mean(-1))
        hit = set(map(tuple, speckles.places.tolist()))
        found, there = found + len(hit & set(map(tuple, places.tolist()))), there + len(places)
        clean = remove_speckles(worn, speckles)
        touched = (clean != worn).any(-1).nonzero().tolist()
        assert all(any(abs(y - r) <= 1 and abs(x - c) <= 1 for r, c in hit) for y, x in touched)
        assert len(touched) <= 1.5 * len(hit)
        at = tuple(speckles.places.T)
        assert (clean[at] - result[at]).abs().mean() < 0.2 * (worn[at] - result[at]).abs().mean()
    assert found >= 0.95 * there


@pytest.mark.parametrize("noise", [0, 1])
def test_stars_and_glints_that_the_source_shows_stay(noise):
    generator = random(3)
    sky = torch.full((600, 600), 0.05)
    rows, cols = (torch.randint(4, 596, (200,), generator=generator) for _ in range(2))
    sky[rows, cols] = 0.3 + 0.6 * torch.rand(200, generator=generator)
    sky = (with_grain(sky, noise) * 255).round() / 255
    source = (reduced(sky) * 255).round() / 255
    assert find_speckles(sky).number > 150
    assert find_speckles(sky, source).number == 0
    assert find_speckles(sky, source).explained > 150
    assert find_speckles(sky, torch.full_like(source, 0.05)).number > 150


def test_grain_is_no_speckles():
    grain = with_grain(torch.full((300, 300), 0.5), 15)
    assert grain.max() > 0.7 and find_speckles(grain).number == 0


def test_alpha_stays():
    image = torch.full((20, 20, 4), 0.3)
    image[7, 9] = 0.9
    clean = remove_speckles(image, find_speckles(image[..., :3].mean(-1)))
    assert torch.allclose(clean[..., :3], torch.tensor(0.3)) and clean[7, 9, 3] == image[7, 9, 3]


def test_a_seam_is_told_and_a_horizon_is_not():
    plan = plan_windows(256, 256, 160, 32, align=16)
    source = with_grain(torch.full((64, 64), 0.4), 4)
    source[plan.tops[1] // 4 :] += 0.3
    plain = with_grain(F.interpolate(source[None, None], scale_factor=4, mode="bicubic")[0, 0].clamp(0, 1), 2)
    rows, cols = borders_of(plan)
    assert measure_seams(plain, source, rows, cols).ratio < 1.3
    assert measure_seams(plain, source, rows, cols).step < 1
    torn = plain.clone()
    torn[:, plan.lefts[1] :] += 4 / 255
    seams = measure_seams(torn, source, rows, cols)
    assert seams.step == pytest.approx(4, abs=0.7) and seams.ratio > 1.5
    assert measure_seams(torn, source, rows, [200]).step < 1
