"""No float64 reaches a device that has none, on any way through the core; and float32 there is near enough."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core import decode, load_network
from pid_core.images.check import check_picture
from pid_core.images.colour import hold_colour_
from pid_core.images.speckles import find_speckles, remove_speckles
from pid_core.images.structure import heat_picture
from pid_core.latents.noise import degrade
from pid_core.model.devices import widest_float
from pid_core.model.network import PiDNetwork
from pid_core.sampling.predict import x0_from_velocity
from pid_core.windows.plan import FUSE_METHODS, fuse_weights, plan_windows
from support.goldens import draw, spec, weights
from support.narrow_device import DEVICE, NarrowDevice, attend_plainly

SIZE = (96, 128)


def on_device(net: PiDNetwork) -> PiDNetwork:
    net = net.to(DEVICE)
    net.attention = attend_plainly
    return net


@pytest.fixture
def device():
    with NarrowDevice() as mode, torch.no_grad():
        yield mode
    assert mode.ran > 0


def test_the_stand_in_refuses_float64_and_computes(device):
    x = draw(1, [2, 3]).to(DEVICE)
    assert x.device == DEVICE and torch.equal((x + 1).cpu(), draw(1, [2, 3]) + 1)
    for bad in (
        lambda: x.double(),
        lambda: torch.zeros(2, dtype=torch.float64).to(DEVICE),
        lambda: x * 1.0 @ x.double(),
    ):
        with pytest.raises(TypeError, match="no float64"):
            bad()


@pytest.mark.parametrize("name", ["flux_v1", "flux_v1pt5"])
@pytest.mark.parametrize("windows", [None, 64], ids=["one frame", "windows"])
def test_decode(name, windows):
    noise = {"noise": draw(1, [2, 3, *SIZE]), "step_noise": [draw(2, [2, 3, *SIZE])]}
    latent, caption = draw(10, [2, 16, 3, 4]).double(), draw(11, [2, 6, 24]).double()
    plan = windows and plan_windows(*SIZE, windows, 32, align=32)
    net = load_network(weights(spec(name)), schedule="distilled")
    net.attention = attend_plainly
    expected = decode(net, latent, caption, [0.0, 0.5], steps=2, windows=plan, **noise)
    with NarrowDevice() as mode:
        got = decode(on_device(net), latent, caption, [0.0, 0.5], steps=2, windows=plan, **noise)
        assert got.device == DEVICE and mode.ran > 100
        got = got.cpu()
    assert (got - expected).abs().max() < 2e-4


@pytest.mark.parametrize("fuse", FUSE_METHODS)
def test_weights_of_windows(device, fuse):
    plan = plan_windows(*SIZE, 64, 32, align=32)
    got = fuse_weights(plan, fuse, device=DEVICE).cpu()
    assert (got - fuse_weights(plan, fuse)).abs().max() < 1e-6
    total = torch.zeros(SIZE)
    for window, weight in zip(plan.windows, got, strict=True):
        total[window.slices()] += weight
    assert (total - 1).abs().max() < 1e-6


@pytest.mark.parametrize("hold", ["mean_deviation", "low_frequencies"])
def test_colour_hold(device, hold):
    pixels, reference = draw(1, [1, 3, 64, 96]), draw(2, [1, 3, 16, 24]).double()
    expected = hold_colour_(pixels.clone(), reference, hold, 0.3)
    assert (hold_colour_(pixels.to(DEVICE), reference, hold, 0.3).cpu() - expected).abs().max() < 1e-5


def test_check(device):
    result, source = draw(1, [48, 64, 3]).sigmoid(), draw(2, [12, 16, 3]).double().sigmoid()
    result[20, 30] = 1.6
    checked, expected = (check_picture(one, source, ([24], [32])) for one in (result.to(DEVICE), result))
    assert checked.check == expected.check and torch.equal(checked.changed, expected.changed)
    heats = [heat_picture(one, expected.changed).cpu() for one in (result.to(DEVICE), result)]
    assert (heats[0] - heats[1]).abs().max() < 1e-5
    bright = find_speckles(torch.zeros(9, 9).index_put((torch.tensor(4), torch.tensor(5)), torch.tensor(1.0)))
    clean = remove_speckles(result.to(DEVICE), bright).cpu()
    assert bright.number == 1 and torch.equal(clean, remove_speckles(result, bright))


def test_latent_noise_is_the_same_on_every_device(device):
    latent = draw(1, [2, 16, 4, 4])
    expected = degrade(latent, [0.2, 0.6], "flux", 7)
    assert torch.equal(degrade(latent.to(DEVICE), [0.2, 0.6], "flux", 7).cpu(), expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 1.0, 30.0]), level=st.floats(0.0, 1.0))
def test_float32_is_as_near_as_the_docstring_says(seed, scale, level):
    x, velocity, t = draw(seed, [64]), scale * draw(seed + 1, [64]), torch.tensor(level)
    exact = x.double() - t.double() * velocity.double()
    bound = 2e-7 * (x.abs() + 2 * (t * velocity).abs()) + 1e-30
    with NarrowDevice():
        got = x0_from_velocity(x.to(DEVICE), t.to(DEVICE), velocity.to(DEVICE)).cpu()
    assert ((got - exact).abs() <= bound).all()


@pytest.mark.parametrize(("kind", "dtype"), [("cpu", torch.float64), ("cuda", torch.float64), ("mps", torch.float32)])
def test_which_devices_have_float64(kind, dtype):
    assert widest_float(torch.device(kind)) is dtype


@pytest.mark.parametrize("kind", ["xpu", "privateuseone", "meta", "vulkan"])
def test_a_device_not_known_to_have_float64_gets_none(kind):
    class Device:
        type = kind

    assert widest_float(Device) is torch.float32
