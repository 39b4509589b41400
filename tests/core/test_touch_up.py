"""touch_up: the mask is drawn again, for little, and nothing else changes by a bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core import NANO_PATH, PiDNetwork, choose_plan, decode, distilled_sigmas, load_network, plan_windows, touch_up
from pid_core.latents.feather import feathered
from pid_core.latents.rgb import to_rgb_latent
from pid_core.model.cost import forward_flops, trunk_work
from pid_core.windows.part import least_side, part_around, projector_reach
from pid_core.windows.plan import plan_flops
from support.calls import velocity
from support.sizes import NANO, SMALL, V1, V15
from support.small import seeded


@pytest.fixture(scope="module")
def net():
    return seeded(PiDNetwork(SMALL).eval())


@pytest.fixture(scope="module")
def nano():
    return load_network(NANO_PATH)


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latent(rows, cols, batch=1):
    return draw(1, batch, SMALL.latent_channels, rows, cols)


def finished(height, width, batch=1):
    return draw(3, batch, 3, height, width).clamp(-1, 1) * 0.9


CAPTION = draw(2, 1, 4, SMALL.caption_width)


def spot(height, width, top, left, side=8, batch=1):
    mask = torch.zeros(batch, 1, height, width)
    mask[..., top : top + side, left : left + side] = 1
    return mask


@given(
    rows=st.integers(1, 8),
    cols=st.integers(1, 8),
    short=st.integers(0, 7),
    place=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    feather=st.integers(0, 40),
    batch=st.integers(1, 2),
    steps=st.sampled_from([1, 2]),
)
@settings(max_examples=25)
def test_outside_the_mask_and_its_border_no_bit_changes(net, rows, cols, short, place, feather, batch, steps):
    height, width = rows * SMALL.latent_cell - short, cols * SMALL.latent_cell
    top, left = int(place[0] * height), int(place[1] * width)
    picture, mask = finished(height, width, batch), spot(height, width, top, left)
    out = touch_up(net, picture, latent(rows, cols, batch), mask, CAPTION, 0.3, feather=feather, steps=steps)
    near = torch.nn.functional.max_pool2d(mask, 2 * feather + 1, stride=1, padding=feather).bool().expand_as(out)
    assert torch.equal(out[~near], picture[~near])
    assert (out != picture)[mask.bool().expand_as(out)].float().mean() > 0.9


def test_an_empty_mask_gives_the_picture_and_calls_nothing(net, monkeypatch):
    picture = finished(64, 64)
    monkeypatch.setattr(net, "forward", lambda *_, **__: pytest.fail("the network was called"))
    assert touch_up(net, picture, latent(8, 8), torch.zeros(1, 1, 64, 64), CAPTION) is picture


def test_one_picture_of_a_batch_with_an_empty_mask_stays(net):
    picture = finished(64, 64, 2)
    mask = torch.cat([torch.zeros(1, 1, 64, 64), spot(64, 64, 20, 20)])
    out = touch_up(net, picture, latent(8, 8, 2), mask, CAPTION)
    assert torch.equal(out[0], picture[0]) and not torch.equal(out[1], picture[1])


@pytest.mark.parametrize("steps", [1, 3])
def test_every_step_sees_the_picture_at_its_noise_level_around_the_mask(net, steps):
    """The loop, written out once more."""
    z, picture, sigmas = latent(8, 8), finished(64, 64), distilled_sigmas(steps)
    noise, *again = (draw(10 + i, 1, 3, 64, 64) for i in range(steps))
    inside = spot(64, 64, 16, 24, side=20)
    x = (1 - sigmas[0]) * picture + sigmas[0] * noise
    with torch.no_grad():
        for i, (t, t_next) in enumerate(pairwise(sigmas)):
            x = inside * x + (1 - inside) * ((1 - t) * picture + t * noise)
            x0 = velocity(net, x, 1000 * t[None], CAPTION, z, torch.tensor([0.2]))  # of a network that predicts x0
            x0 = inside * x0 + (1 - inside) * picture
            x = (1 - t_next) * x0 + t_next * again[i] if t_next else x0
    seen = []
    options = {"steps": steps, "noise": noise, "step_noise": again, "callback": lambda *step: seen.append(step[2])}
    out = touch_up(net, picture, z, inside, CAPTION, 0.2, feather=0, **options)
    outside = (inside == 0).expand_as(out)
    assert all(torch.equal(x0[outside], picture[outside]) for x0 in seen) and len(seen) == steps
    assert torch.allclose(out, x.clamp(-1, 1) * inside + picture * (1 - inside), atol=1e-5)


def test_the_border_falls_off_over_the_feather(net):
    picture, mask = torch.zeros(1, 3, 64, 64), spot(64, 64, 24, 24, side=16)
    sharp, soft = (touch_up(net, picture, latent(8, 8), mask, CAPTION, feather=feather, steps=1) for feather in (0, 16))
    share = feathered(mask, 16)
    assert share[mask > 0].eq(1).all() and 0.2 < share[0, 0, 32, 16] < 0.8 and share[0, 0, 32, 8] < 0.1
    whole = touch_up(net, picture, latent(8, 8), (share > 0).float(), CAPTION, feather=0, steps=1)
    assert torch.allclose(soft, whole * share, atol=1e-6)
    assert not sharp[:, :, :24].any()


def test_a_mask_over_all_is_a_decode_that_begins_at_the_picture(net):
    z, picture, noise, again = latent(3, 5), finished(24, 40), draw(7, 1, 3, 24, 40), draw(8, 1, 3, 24, 40)
    start = 0.999 * noise + (1 - torch.tensor(0.999)) * picture
    out = touch_up(net, picture, z, torch.ones(1, 1, 24, 40), CAPTION, steps=2, noise=noise, step_noise=[again])
    assert torch.allclose(out, decode(net, z, CAPTION, steps=2, noise=start, step_noise=[again]), atol=1e-5)


def test_the_same_seed_draws_again_what_decode_drew(nano):
    """Also of a rectangle: noise and latent are those of the whole picture, and its edge is out of sight."""
    z = to_rgb_latent(torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(4)))
    picture = decode(nano, z, seed=5)
    mask = spot(512, 512, 300, 100, side=64)
    out = touch_up(nano, picture, z, mask, seed=5)
    other = touch_up(nano, picture, z, mask, degrade_sigma=0.5, seed=6)
    assert (out - picture).abs().max() < 1e-4 < (other - picture).abs().max()


def test_a_map_of_sigma_is_cut_as_the_latent_is(nano):
    z = to_rgb_latent(torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(4)))
    picture, mask = decode(nano, z), spot(512, 512, 300, 100, side=64)
    sigma = torch.rand(1, 1, *z.shape[-2:], generator=torch.Generator().manual_seed(9))
    expected = decode(nano, z, degrade_sigma=sigma)
    out = touch_up(nano, picture, z, mask, degrade_sigma=sigma)
    inside = mask.bool().expand_as(out)
    assert (out - expected)[inside].abs().max() < 1e-4 < (out - picture)[inside].abs().max()


def test_only_windows_that_touch_the_mask_run(net, monkeypatch):
    z, picture = latent(16, 16), finished(128, 128)
    mask = spot(128, 128, 0, 0) + spot(128, 128, 120, 120)

    def plan(height, width):
        return plan_windows(height, width, 48, 16, align=SMALL.latent_cell)

    calls, forward = [], net.forward
    monkeypatch.setattr(net, "forward", lambda x, *a, **k: calls.append(x.shape) or forward(x, *a, **k))
    options = {"feather": 4, "steps": 2, "plan": plan}
    few = touch_up(net, picture, z, mask, CAPTION, **options)
    assert len(calls) == 2 * 2 and plan(128, 128).count == 16
    monkeypatch.setattr("pid_core.sampling.surroundings.Surroundings.touches", lambda *_: True)
    assert torch.equal(touch_up(net, picture, z, mask, CAPTION, **options), few) and len(calls) == 2 * 2 + 2 * 16


@given(
    config=st.sampled_from([V1, V15, NANO, SMALL]),
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    box=st.tuples(*[st.floats(0, 1)] * 4),
    reach=st.integers(0, 100),
)
def test_the_part_holds_the_mask_and_what_is_near(config, size, box, reach):
    sides, cell = [], config.latent_cell
    marks = [torch.zeros(side, dtype=torch.bool) for side in size]
    for side, marked, (one, two) in zip(size, marks, (box[:2], box[2:]), strict=True):
        first, last = sorted(min(side - 1, int(share * side)) for share in (one, two))
        marked[first : last + 1] = True
        sides.append((first, last))
    part = part_around((marks[0][:, None] & marks[1]).expand(1, 1, -1, -1), config, reach)
    spans = (part.top, part.bottom), (part.left, part.right)
    for side, (first, last), (begin, end) in zip(size, sides, spans, strict=True):
        margin, whole = reach + projector_reach(config), -(-side // cell) * cell
        assert begin % cell == end % cell == 0 <= begin and end <= whole
        assert begin <= max(0, first - margin) and end >= min(side, last + 1 + margin)
        assert end - begin >= min(whole, least_side(config))
        assert end - begin <= max(least_side(config), last + 1 - first + 2 * (margin + cell))


@pytest.mark.parametrize("config", [V1, V15, NANO], ids=["v1", "v1.5", "nano"])
@pytest.mark.parametrize("place", [0, 1900, 3840])
def test_256_pixels_of_4096_cost_a_tenth_at_most(config, place):
    """FLOP of a step, and of the projector, against the cheapest windows there are."""
    overlap = min(512, config.window_max // 4)
    whole = choose_plan(4096, 4096, config, memory_budget=24e9, overlap=overlap, device="cuda")
    part = part_around(spot(4096, 4096, place, place, side=256) > 0, config, 32)
    size = part.height, part.width
    assert max(size) <= config.window_max  # one call a step
    assert forward_flops(config, *size) <= plan_flops(whole, config) / 10
    assert trunk_work(config, *size) <= trunk_work(config, 4096, 4096) / 5
    steps = config.steps
    assert (
        trunk_work(config, *size) + steps * forward_flops(config, *size)
        <= (trunk_work(config, 4096, 4096) + steps * plan_flops(whole, config)) / 10
    )


def test_what_runs_is_what_the_cost_counts(nano, monkeypatch):
    """The calls of a 256 px mask on 4096 x 4096: one a step, on the part alone."""
    calls, forward, size = [], nano.forward, (4096, 4096)
    monkeypatch.setattr(nano, "forward", lambda x, *a, **k: calls.append(x.shape) or forward(x, *a, **k))
    picture, mask = torch.zeros(1, 3, *size), spot(*size, 2000, 1000, side=256)
    z, noise = torch.zeros(1, 12, 512, 512), torch.zeros(()).expand(1, 3, *size)
    touch_up(nano, picture, z, mask, noise=noise, steps=1)
    part = part_around(mask > 0, nano.config, 32)
    assert calls == [(1, 3, part.height, part.width)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"picture": finished(64, 72)},
            "the picture is 72 x 64, its latent decodes to 64 x 64: give the picture as it",
        ),
        ({"picture": finished(64, 64, 2)}, "as many pictures as latents"),
        ({"picture": finished(64, 64) * torch.nan}, "the picture holds NaN or infinite values"),
        ({"mask": torch.ones(1, 1, 32, 32)}, r"the mask has shape [1, 1, 32, 32], [1 or 1, 1, 64, 64] is needed"),
        ({"mask": torch.full((1, 1, 64, 64), 2.0)}, "the mask holds values outside 0 to 1"),
        ({"mask": torch.full((1, 1, 64, 64), torch.nan)}, "the mask holds values outside 0 to 1"),
        ({"noise": finished(32, 32)}, "noise has shape"),
        ({"steps": 5}, "steps is 5"),
        ({"degrade_sigma": 2.0}, "degrade_sigma must be between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(net, changes, line):
    given = {"picture": finished(64, 64), "lq_latent": latent(8, 8), "mask": spot(64, 64, 8, 8), "caption": CAPTION}
    with pytest.raises(ValueError) as error:
        touch_up(net, **given | changes)
    assert line in str(error.value) and "\n" not in str(error.value)
