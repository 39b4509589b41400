"""The NaN guard: a call that gives NaN is repeated in float32 with SDPA, and no NaN ever becomes an image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pid_core import decode, load_network
from pid_core.latents.rgb import to_image
from pid_core.model import attention
from pid_core.model.guard import NonFiniteError, all_finite, checked_together, finite_or_repeat, widened_layers
from pid_core.windows.plan import plan_windows
from support.calls import velocity
from support.tiny import save_tiny, tiny_state_dict

BF16 = torch.bfloat16


class Attention:
    """SDPA that gives NaN (or what is asked) in the calls named, counted from 0; `dtypes` are those it saw."""

    __name__ = "broken_attention"

    def __init__(self, *bad: int, value: float = float("nan"), always: bool = False):
        self.bad, self.value, self.always, self.dtypes = bad, value, always, []

    def __call__(self, q, k, v):
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        broken = self.always or len(self.dtypes) in self.bad
        self.dtypes.append(q.dtype)
        return torch.full_like(out, self.value) if broken else out


def network(attention=None, dtype=BF16, family="flux", version="v1.5"):
    net = load_network(tiny_state_dict(family, version), dtype=dtype, attention=attention)
    net.default_caption = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(2))
    return net


def run(net, latent, **options):
    return decode(net, latent, degrade_sigma=0.1, seed=3, **options)


LATENT = torch.randn(1, 16, 2, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("version", ["v1", "v1.5"])
def test_a_step_with_nan_is_repeated_in_float32(value, version, caplog, monkeypatch):
    good = run(network(version=version), LATENT)
    seen = []
    sdpa = attention.sdpa
    monkeypatch.setattr("pid_core.model.guard.sdpa", lambda q, k, v: seen.append(q.dtype) or sdpa(q, k, v))
    net = network(Attention(7, value=value), version=version)
    out = run(net, LATENT)
    assert seen == [torch.float32] * 6  # one step: four patch blocks, two pixel blocks
    assert (out - good).abs().mean() < 0.02
    assert net.repeated == ["the network at noise level 0.866 in bfloat16 with broken_attention"]
    assert "noise level 0.866" in caplog.text and "float32" in caplog.text
    assert net.compute_dtype == BF16 and net.attention.__name__ == "broken_attention"


def test_the_repetition_is_that_of_a_float32_network():
    weights = {k: v.to(BF16) for k, v in tiny_state_dict("flux", "v1.5").items()}
    wide, short = load_network(weights), load_network(weights, dtype=BF16, attention=Attention(always=True))
    wide.default_caption = short.default_caption = torch.randn(1, 5, 24)
    dtypes = {k: v.dtype for k, v in short.state_dict().items()}
    a, b = (run(net, LATENT) for net in (wide, short))
    # the projector's features alone are still those of bfloat16
    assert (a - b).abs().mean() < 0.02
    assert {k: v.dtype for k, v in short.state_dict().items()} == dtypes
    assert len(short.repeated) == 4
    x = torch.randn(1, 3, 64, 96)
    given = x, torch.tensor([500.0]), wide.default_caption, LATENT, torch.tensor([0.2])
    with torch.no_grad(), short.in_float32():
        ours = velocity(short, *given)
    with torch.no_grad():
        assert torch.equal(ours, velocity(wide, *given))


def test_nan_in_float32_too_is_one_line(monkeypatch):
    monkeypatch.setattr("pid_core.model.guard.sdpa", Attention(always=True))
    net = network(Attention(13))
    with pytest.raises(NonFiniteError) as caught:
        run(net, LATENT)
    line = str(caught.value)
    for words in ("step 3 of 4", "noise level 0.634", "bfloat16 with broken_attention", "again in float32 with"):
        assert words in line
    assert "\n" not in line
    assert net.compute_dtype == BF16


def test_a_window_is_repeated_alone():
    latent = torch.randn(1, 16, 2, 4)
    plan = plan_windows(64, 128, 64, 0, align=32)
    assert plan.count == 2
    good = run(network(), latent, windows=plan)
    net = network(Attention(9))  # the second window of the first step
    out = run(net, latent, windows=plan)
    assert len(net.repeated) == 1 and (out - good).abs().mean() < 0.02


def test_a_window_that_fails_is_named(monkeypatch):
    monkeypatch.setattr("pid_core.model.guard.sdpa", Attention(always=True))
    plan = plan_windows(64, 128, 64, 0, align=32)
    with pytest.raises(NonFiniteError, match="step 1 of 4, window 2 of 2, the network at noise level 0.999"):
        run(network(Attention(9)), torch.randn(1, 16, 2, 4), windows=plan)


def test_the_projector_is_guarded_too(monkeypatch):
    net = network()
    encode, calls = type(net).encode_lq, []

    def once(self, *args):
        calls.append(self.compute_dtype)
        return encode(self, *args) * (float("nan") if len(calls) == 1 else 1)

    monkeypatch.setattr(type(net), "encode_lq", once)
    out = run(net, LATENT)
    assert calls == [BF16, torch.float32]
    assert torch.isfinite(out).all() and net.repeated == ["the latent's projector in bfloat16 with attend"]


def test_a_caption_that_is_broken_is_named_and_nothing_is_repeated():
    net = network()
    with pytest.raises(ValueError, match="caption holds 96 NaN"):
        run(net, LATENT, caption=torch.full((1, 4, 24), float("nan")))
    assert net.repeated == []


def test_a_damaged_checkpoint_gives_an_error_and_no_image(tmp_path):
    path = save_tiny(tmp_path / "nan.safetensors", caption=3)
    net = load_network(path)
    net.patch_blocks[1].mlp_x.w2.weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="step 1 of 4.*the checkpoint may be damaged"):
        run(net, LATENT)


def test_the_list_of_repeated_calls_is_that_of_the_last_run():
    net = network(Attention(0))
    run(net, LATENT)
    assert len(net.repeated) == 1
    run(net, LATENT)
    assert net.repeated == []


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), max_size=20))
def test_all_finite(values):
    tensor = torch.tensor(values, dtype=torch.float32)  # finite ones too may add up to more than a float32
    assert all_finite(tensor) == bool(torch.isfinite(tensor).all())


def test_nan_is_no_image():
    with pytest.raises(ValueError, match="NaN"):
        to_image(torch.full((1, 3, 2, 2), float("nan")))


NAN = float("nan")


def test_a_call_without_memory_blames_no_other_call():
    """Calls checked together: where one raised and was made again smaller, the others have other numbers."""
    net, full = network(), [True]

    def call(name, values):
        return finite_or_repeat(net, values, lambda: name)

    def no_memory():
        raise torch.OutOfMemoryError("full")

    def nan_in_bfloat16():
        return torch.full((2,), 1.0 if net.compute_dtype == torch.float32 else NAN)

    def calls():
        if full:
            full.clear()
            with pytest.raises(torch.OutOfMemoryError):
                call("the large one", no_memory)
        return [call("the first", nan_in_bfloat16), call("the second", lambda: torch.ones(2))]

    first, second = checked_together(calls)
    assert torch.equal(first, second)
    assert net.repeated == ["the first in bfloat16 with attend"]


def test_calls_that_end_in_an_error_leave_nothing_behind():
    net = network()

    def calls():
        finite_or_repeat(net, lambda: torch.full((2,), NAN), lambda: "it")
        raise KeyError("stop")

    with pytest.raises(KeyError):
        checked_together(calls)
    with pytest.raises(NonFiniteError):  # looked at now
        finite_or_repeat(net, lambda: torch.full((2,), NAN), lambda: "it")


def test_a_layer_that_fails_while_it_is_widened_has_its_own_weights_again():
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(5, 4)).to(BF16)
    own = [parameter.data_ptr() for parameter in net.parameters()]
    with widened_layers(net):
        with pytest.raises(RuntimeError, match="shapes"):
            net(torch.zeros(1, 4))
        assert [parameter.data_ptr() for parameter in net.parameters()] == own
    assert {parameter.dtype for parameter in net.parameters()} == {BF16}
