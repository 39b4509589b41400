"""Decoding by windows: the same network calls, put together rightly."""

import pytest
import torch
from goldens import draw, spec, weights

from pid_core import decode, load_network
from pid_core.windowed import predict_x0, predict_x0_by_windows
from pid_core.windows import fuse_weights, plan_windows

SIZE = (96, 128)  # pixels; 3 x 4 latent cells of 32


@pytest.fixture(scope="module")
def net():
    return load_network(weights(spec("flux_v1")))


@pytest.fixture
def inputs():
    noise = draw(1, [2, 3, *SIZE])
    step_noise = [draw(2 + i, [2, 3, *SIZE]) for i in range(3)]
    return draw(10, [2, 16, 3, 4]), draw(11, [2, 6, 24]), [0.0, 0.5], {"noise": noise, "step_noise": step_noise}


def test_a_plan_of_one_window_changes_no_bit(net, inputs):
    *given, noise = inputs
    plan = plan_windows(*SIZE, 128, 32, align=32)
    assert plan.count == 1
    assert torch.equal(decode(net, *given, **noise, windows=plan), decode(net, *given, **noise))


@pytest.mark.parametrize("fuse", ["pyramid", "linear", "cosine", "flat"])
def test_a_step_is_the_weighted_sum_of_its_windows(net, inputs, fuse):
    """Each window an image of its own, with the slice of the whole canvas's trunk features that lies under it."""
    latent, caption, sigma, noise = inputs
    x, t, sigma = noise["noise"], torch.tensor(0.866), torch.tensor(sigma)
    features = net.encode_lq(latent, *SIZE)
    plan = plan_windows(*SIZE, 64, 32, align=32)
    assert plan.count == 6
    expected = torch.zeros_like(x)
    grid = features.view(2, 6, 8, -1)
    for window, weight in zip(plan.windows, fuse_weights(plan, fuse), strict=True):
        top, left = window.top, window.left
        part = x[:, :, top : top + 64, left : left + 64]
        under = grid[:, top // 16 : top // 16 + 4, left // 16 : left // 16 + 4].reshape(2, 16, -1)
        x0 = predict_x0(net, part, t, caption, under, sigma)
        expected[:, :, top : top + 64, left : left + 64] += weight * x0
    for batch in (1, 4, 6):
        got = predict_x0_by_windows(net, x, t, caption, features, sigma, plan, fuse=fuse, window_batch=batch)
        assert torch.allclose(got, expected, atol=1e-4)


def test_every_window_is_reported(net, inputs):
    latent, caption, sigma, noise = inputs
    plan, seen = plan_windows(*SIZE, 64, 32, align=32), []
    predict_x0_by_windows(
        *(net, noise["noise"], torch.tensor(0.999), caption, net.encode_lq(latent, *SIZE), torch.tensor(sigma), plan),
        window_batch=4,
        on_windows=lambda done, whole: seen.append((done, whole)),
    )
    assert seen == [(4, 6), (6, 6)]


def test_out_of_memory_halves_the_batch_and_loses_nothing(net, inputs, monkeypatch):
    *given, noise = inputs
    plan = plan_windows(*SIZE, 64, 32, align=32)
    expected = decode(net, *given, **noise, windows=plan)
    forward = net.forward

    def small_card(x, *args, **kwargs):
        if x.shape[0] > 2:
            raise torch.OutOfMemoryError
        return forward(x, *args, **kwargs)

    monkeypatch.setattr(net, "forward", small_card)
    with pytest.warns(UserWarning, match="out of memory: 1 window"):
        got = decode(net, *given, **noise, windows=plan, window_batch=6)
    assert torch.allclose(got, expected, atol=1e-4)


def test_a_plan_for_another_canvas_is_refused(net, inputs):
    *given, noise = inputs
    with pytest.raises(ValueError, match="planned for 128 x 128 pixels, this image is 128 x 96"):
        decode(net, *given, **noise, windows=plan_windows(128, 128, 64, 32, align=32))
    with pytest.raises(ValueError, match="multiples of 8 pixels, multiples of 16 are needed"):
        decode(net, *given, **noise, windows=plan_windows(*SIZE, 64, 32, align=8))
