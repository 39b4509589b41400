"""Beginning from a picture, at a later noise level."""

from itertools import pairwise

import pytest
import torch

from pid_core import decode, distilled_sigmas, load_network
from pid_core.latents.reference import resize
from support.calls import velocity
from support.goldens import draw, spec, weights

SIZE = (32, 64)
SHAPE = [1, 3, *SIZE]


@pytest.fixture(scope="module")
def net():
    return load_network(weights(spec("flux_v1")))


@pytest.fixture
def given():
    return draw(1, [1, 16, 1, 2]), draw(2, [1, 5, 24])


def picture(seed=3, size=SIZE):
    return draw(seed, [1, 3, *size]).clamp(-1, 1)


@pytest.mark.parametrize(("steps", "start_at"), [(4, 2), (4, 3), (4, 4), (3, 2), (2, 2)])
def test_the_rest_of_the_schedule_runs_from_the_picture_mixed_with_noise(net, given, steps, start_at):
    draws, sigmas = [draw(20 + i, SHAPE) for i in range(steps)], distilled_sigmas(steps)[start_at - 1 :]
    x = (1 - sigmas[0]) * picture() + sigmas[0] * draws[0]
    with torch.no_grad():
        for i, (t, t_next) in enumerate(pairwise(sigmas), start=1):
            v = velocity(net, x, torch.full((1,), 1000.0) * t, given[1], given[0], torch.tensor([0.3]))
            x0 = (x.double() - t.double() * v.double()).float()
            x = x0 if t_next == 0 else (1 - t_next) * x0 + t_next * draws[i]
    seen = []
    out = decode(
        net, *given, 0.3, steps=steps, start=picture(), start_at=start_at, noise=draws[0], step_noise=draws[1:],
        callback=lambda step, count, x0: seen.append((step, count)),
    )  # fmt: skip
    assert torch.allclose(out, x.clamp(-1, 1), atol=1e-5)
    calls = steps - start_at + 1
    assert seen == [(i, calls) for i in range(1, calls + 1)]


def test_from_step_1_nothing_changes(net, given):
    assert torch.equal(decode(net, *given, seed=3, start_at=1), decode(net, *given, seed=3))


def test_the_draws_of_a_seed_come_in_their_order(net, given):
    generator = torch.Generator().manual_seed(5)
    first, *later = [torch.randn(SHAPE, generator=generator) for _ in range(3)]
    by_hand = decode(net, *given, start=picture(), start_at=3, noise=first, step_noise=later[:1])
    assert torch.equal(decode(net, *given, start=picture(), start_at=3, seed=5), by_hand)


def test_another_size_is_resized_and_one_picture_serves_a_batch(net):
    small, latents, texts = picture(size=(8, 16)), draw(1, [2, 16, 1, 2]), draw(2, [2, 5, 24])
    whole = torch.stack([resize(channel, SIZE) for channel in small[0]]).clamp(-1, 1)
    expected = decode(net, latents, texts, start=whole.expand(2, -1, -1, -1), start_at=4)
    assert torch.equal(decode(net, latents, texts, start=small, start_at=4), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_at": 2}, "start_at is 2, and there is no picture to start from"),
        ({"start": picture()}, "a picture to start from is given, and start_at is 1"),
        ({"start": picture(), "start_at": 5}, "start_at is 5, but there are 4 steps: choose 1 to 4"),
        ({"start": picture(), "start_at": 0}, "start_at is 0, but there are 4 steps"),
        ({"start": picture(), "start_at": 2, "steps": 1}, "start_at is 2, but one step has no later level"),
        ({"start": picture(size=(32, 32)), "start_at": 2}, "picture to start from is 32 x 32, the image 64 x 32"),
        ({"start": picture()[:, :1], "start_at": 2}, "pictures of 3 channels are needed"),
        ({"start": picture() * torch.nan, "start_at": 2}, "picture to start from holds NaN"),
        ({"start": picture().repeat(3, 1, 1, 1), "start_at": 2}, "holds 3 images, there are 1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(net, given, options, message):
    with pytest.raises(ValueError, match=message) as error:
        decode(net, *given, **options)
    assert "\n" not in str(error.value)
