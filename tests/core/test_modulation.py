"""The patch blocks' modulations, worked out once per run: the same picture to the bit, and the matrices read once."""

from collections import Counter

import pytest
import torch

from pid_core import decode, load_network
from pid_core.model.modulation import Modulations
from pid_core.windows.plan import plan_windows
from support.calls import velocity
from support.goldens import draw, spec, weights

SIZE = (96, 128)  # pixels; 3 x 4 latent cells of 32


@pytest.fixture(scope="module")
def net():
    return load_network(weights(spec("flux_v1")))


def inputs(images: int):
    noise = draw(1, [images, 3, *SIZE])
    step_noise = [draw(2 + i, [images, 3, *SIZE]) for i in range(3)]
    return (draw(10, [images, 16, 3, 4]), draw(11, [images, 6, 24]), 0.1), {"noise": noise, "step_noise": step_noise}


def called_layers(net) -> tuple[Counter, list]:
    """How often each modulation's matrix is read by a call of its layer."""
    counts, handles = Counter(), []
    for name, layer in net.named_modules():
        if ".adaLN_modulation_img.0" in name or ".adaLN_modulation_txt.0" in name:
            handles.append(layer.register_forward_hook(lambda *_, name=name: counts.update([name])))
    return counts, handles


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("window", [None, 64])
def test_pixels_are_the_same_to_the_bit(monkeypatch, dtype, images, window):
    net = load_network(weights(spec("flux_v1")), dtype=dtype)
    given, noise = inputs(images)
    plan = None if window is None else plan_windows(*SIZE, window, 32, align=32)
    with_it = decode(net, *given, **noise, windows=plan)
    forward = type(net).forward
    monkeypatch.setattr(type(net), "forward", lambda *args, level=None, **kw: forward(*args, **kw))
    assert torch.equal(with_it, decode(net, *given, **noise, windows=plan))


def test_a_level_is_worked_out_once_for_all_windows(net):
    given, noise = inputs(1)
    plan = plan_windows(*SIZE, 64, 32, align=32)
    counts, handles = called_layers(net)
    decode(net, *given, **noise, windows=plan)
    for handle in handles:
        handle.remove()
    assert plan.count == 6 and set(counts.values()) == {4}  # four levels, not 24 calls


def call(net, level, t=866.0, images=1):
    x, latent, caption = draw(1, [images, 3, *SIZE]), draw(10, [images, 16, 3, 4]), draw(11, [images, 6, 24])
    return velocity(net, x, torch.full([images], t), caption, latent, torch.zeros(images), level=level)


@torch.no_grad()
def test_all_levels_come_with_the_first_call_and_others_when_they_come(net):
    run = Modulations([999.0, 866.0])
    counts, handles = called_layers(net)
    call(net, run.at(999.0), t=999.0)
    first = dict(counts)
    known = call(net, run.at(866.0))
    assert counts == first  # nothing more was read
    other = call(net, run.at(500.0), t=500.0)
    assert all(counts[name] == first[name] + 1 for name in first)
    for handle in handles:
        handle.remove()
    assert torch.equal(known, call(net, None)) and torch.equal(other, call(net, None, t=500.0))
    assert not torch.equal(known, other)


@torch.no_grad()
def test_another_number_of_images_and_another_dtype_have_their_own(net):
    run = Modulations([866.0])
    call(net, run.at(866.0))
    assert torch.equal(call(net, run.at(866.0), images=2), call(net, None, images=2))
    with net.in_float32():
        assert torch.equal(call(net, run.at(866.0)), call(net, None))
