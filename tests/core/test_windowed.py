"""Decoding by windows: the same network calls, put together rightly."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from pid_core import decode, load_network
from pid_core.model.pixel_cache import PIXEL_CACHES
from pid_core.sampling.predict import predict_x0, predict_x0_by_windows
from pid_core.windows.plan import Window, fuse_weights, plan_windows, shrink_plan
from pid_core.windows.run import WindowRun, is_out_of_memory
from support.goldens import draw, spec, weights

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
        run = WindowRun(plan, fuse=fuse, window_batch=batch)
        got = predict_x0_by_windows(net, x, t, caption, features, sigma, run=run)
        assert torch.allclose(got, expected, atol=1e-4)


def test_every_window_is_reported(net, inputs):
    latent, caption, sigma, noise = inputs
    plan, seen = plan_windows(*SIZE, 64, 32, align=32), []
    predict_x0_by_windows(
        net, noise["noise"], torch.tensor(0.999), caption, net.encode_lq(latent, *SIZE), torch.tensor(sigma),
        run=WindowRun(plan, window_batch=4, on_windows=lambda done, whole: seen.append((done, whole))),
    )  # fmt: skip
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
    with pytest.warns(UserWarning, match="memory: 3 window"), pytest.warns(UserWarning, match="memory: 1 window"):
        got = decode(net, *given, **noise, windows=plan, window_batch=6)
    assert torch.allclose(got, expected, atol=1e-4)


class Card:
    """A network call whose x0 says which windows ran, and that has room for so many pixels at once."""

    def __init__(self, pixels):
        self.pixels, self.seen = pixels, []

    def __call__(self, windows):
        if sum(w.height * w.width for w in windows) > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen += windows
        return (torch.ones(2 * len(windows), 3, *windows[0][2:]),)


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_out_of_memory_takes_smaller_windows_for_what_is_left(batch):
    """With room for the first windows only: they count, and smaller ones do the rest."""
    said, card = [], Card(64 * 64)
    run = WindowRun(plan_windows(*SIZE, 64, 32, align=32), window_batch=batch, say=said.append)

    def predict(windows):
        if len(card.seen) == 2:
            card.pixels = 32 * 32
        return card(windows)

    out = run.step(predict)[0]
    assert out.shape == (2, 3, *SIZE)
    assert torch.allclose(out, torch.ones_like(out), atol=1e-5)  # the weights of both plans add up to 1
    assert "smaller windows from here on, 12 windows of 32 x 32 px" in said[-1]
    assert run.plan.size == (32, 32) and run.window_batch == 1
    small = card.seen[2:]
    # the cell that only the two finished windows cover is not run again
    assert card.seen[0] == Window(0, 0, 64, 64) and Window(0, 0, 32, 32) not in small
    assert len(small) < 12
    assert run.step(card)[0].shape == (2, 3, *SIZE)


def test_windows_that_get_smaller_twice_in_a_step_fill_what_both_plans_left():
    """Ones, by the weights of three plans that overlap: what is filled twice or not at all is no 1."""
    canvas, said, card = (256, 384), [], Card(128 * 128)
    plan = plan_windows(*canvas, 128, 32, align=32)
    run = WindowRun(plan, say=said.append)

    def predict(windows):
        if len(card.seen) == 3:
            card.pixels = 96 * 96 - 1
        if len(card.seen) == 9:
            card.pixels = 32 * 32
        return card(windows)

    (out,) = run.step(predict)
    assert len({window.height for window in card.seen}) == 3
    assert torch.allclose(out, torch.ones_like(out), atol=1e-5)
    assert sum("smaller windows" in line for line in said) >= 2


def test_a_smaller_plan_has_what_the_larger_one_is_run_with():
    smaller = shrink_plan(replace(plan_windows(256, 384, 128, 32, align=32), pixel_cache=PIXEL_CACHES[2]))
    assert (smaller.pixel_cache, smaller.align, smaller.height, smaller.width) == (PIXEL_CACHES[2], 32, 256, 384)


def test_out_of_memory_in_the_smallest_window_is_raised():
    with pytest.raises(torch.OutOfMemoryError):
        WindowRun(plan_windows(*SIZE, 64, 32, align=32), say=str).step(Card(10))


def test_other_errors_are_raised_at_once():
    def predict(windows):
        raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="a shape is wrong"):
        WindowRun(plan_windows(*SIZE, 64, 32, align=32), window_batch=4, say=str).step(predict)


def test_the_cpus_own_words_are_out_of_memory_too():
    failed = []

    def predict(windows):
        if not failed:
            failed.append(1)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return Card(1e9)(windows)

    WindowRun(plan_windows(*SIZE, 64, 32, align=32), window_batch=4, say=failed.append).step(predict)
    assert "2 window(s)" in failed[1]


def test_only_windows_alike_share_a_batch():
    plan, seen = plan_windows(*SIZE, 64, 32, align=32), []

    def predict(windows):
        seen.append(windows)
        return Card(1e9)(windows)

    WindowRun(plan, window_batch=6).step(predict, alike=lambda w: w.left % 64)
    assert [len(windows) for windows in seen] == [4, 2]
    assert [len({w.left % 64 for w in windows}) for windows in seen] == [1, 1]


def test_shrunk_plans_end_at_one_cell():
    plan, sides = plan_windows(2048, 2048, 2048, 512, align=32), []
    while plan is not None:
        sides.append((max(plan.size), plan.overlap))
        plan = shrink_plan(plan)
    assert sides[:3] == [(2048, 512), (1280, 512), (896, 480)]
    assert all(b[0] < a[0] for a, b in pairwise(sides)) and sides[-1] == (32, 0)


def test_an_unknown_fuse_is_refused_before_any_work():
    with pytest.raises(ValueError, match="'round' is unknown"):
        WindowRun(plan_windows(*SIZE, 64, 32, align=32), fuse="round")


def test_a_plan_for_another_canvas_is_refused(net, inputs):
    *given, noise = inputs
    with pytest.raises(ValueError, match="planned for 128 x 128 pixels, this image is 128 x 96"):
        decode(net, *given, **noise, windows=plan_windows(128, 128, 64, 32, align=32))
    with pytest.raises(ValueError, match="multiples of 8 pixels, multiples of 16 are needed"):
        decode(net, *given, **noise, windows=plan_windows(*SIZE, 64, 32, align=8))


@pytest.mark.parametrize("times", [1, 2])
def test_windows_that_do_not_fit_beside_each_other_are_fused_again_or_in_main_memory(monkeypatch, times):
    plan, said, freed = plan_windows(*SIZE, 64, 32, align=32), [], []
    expected = WindowRun(plan, window_batch=2).step(Card(1e9))[0]
    weight, calls = WindowRun._weight, []

    def short(*args, **kwargs):
        calls.append(1)
        if 4 <= len(calls) < 4 + times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return weight(*args, **kwargs)

    monkeypatch.setattr(WindowRun, "_weight", short)
    run = WindowRun(plan, window_batch=2, say=said.append, free=lambda: freed.append(1))
    assert torch.equal(run.step(Card(1e9))[0], expected)
    assert len(freed) == times and len(said) == times - 1
    assert all("put together in main memory" in line for line in said)


def test_out_of_memory_that_nothing_cures_says_what_was_tried():
    run = WindowRun(plan_windows(*SIZE, 64, 32, align=32), window_batch=4, say=str, least=48)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        run.step(Card(10))
    line = str(caught.value)
    assert line.startswith("out of memory: tried 4 windows at a time, 2 windows at a time, windows of 64 x 64, ")
    assert "\n" not in line and "CUDA out of memory" in line


def test_windows_in_need_end_at_a_third_of_what_was_trained():
    """Here of 192, what three windows of at most 256 are."""
    run = WindowRun(plan_windows(512, 512, 256, 32, align=32), say=str, least=100)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        run.step(Card(10))
    sides = [int(side) for side in re.findall(r"windows of (\d+) x", str(caught.value))]
    assert len(sides) > 1 and 64 <= min(sides) < 96
    assert run.shrunk


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("any words"), True),
        (RuntimeError("CUDA error: Out Of Memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_every_way_of_saying_that_memory_ran_out(error, memory):
    """On Windows and on Linux, on a card and without."""
    assert is_out_of_memory(error) == memory
