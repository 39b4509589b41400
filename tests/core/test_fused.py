"""Where the fused kernels run and which attention is taken, told without a card."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend

from pid_core.model import attention, fused
from pid_core.model.network import PiDNetwork

FLASH, CUDNN = attention.CANDIDATES


@pytest.fixture
def card(monkeypatch):
    """A machine that says it has an NVIDIA card of compute capability 9.0, on which the trial gives right values."""
    monkeypatch.setattr(fused, "_reasons", {})
    monkeypatch.delenv(fused.SWITCH, raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(fused, "register", lambda: True)
    monkeypatch.setattr(fused, "_trial", lambda *_: True)
    return monkeypatch


def fails(*_):
    raise RuntimeError("Failed to find C compiler.\nPlease specify CC")


def broken():
    raise ImportError("DLL load failed")


def test_kernels_run_where_a_trial_was_right(card):
    assert fused.why_not() is None
    assert fused.kind_of(torch.device("cuda")) == "kernels"
    assert fused.kind_of(torch.device("mps")) == "mps"


@pytest.mark.parametrize(
    ("place", "name", "value", "words"),
    [
        (torch.cuda, "get_device_capability", lambda device: (7, 0), "compute capability is 7.0, and they need 7.5"),
        (torch.cuda, "is_available", lambda: False, "no NVIDIA card"),
        (torch.version, "cuda", None, "no NVIDIA card"),
        (fused, "register", lambda: False, "triton-windows"),
        (fused, "_trial", fails, "RuntimeError: Failed to find C compiler."),
        (fused, "_trial", lambda *_: False, "wrong values"),
        (fused, "register", broken, "ImportError: DLL load failed"),
    ],
)
def test_a_reason_in_one_line_where_they_do_not(card, place, name, value, words):
    card.setattr(place, name, value)
    assert words in fused.why_not() and "\n" not in fused.why_not()
    assert fused.kind_of(torch.device("cuda")) == "cuda"


def test_a_card_without_bfloat16_has_to_run_it_too(card):
    """Triton 3.1, which PyTorch 2.5 brings, compiles no bfloat16 for Turing: the first picture would have failed."""

    def trial(device, dtype=torch.float32):
        if dtype == torch.bfloat16:
            raise IndexError("map::at")
        return True

    card.setattr(fused, "_trial", trial)
    assert fused.why_not() is None
    card.setattr(fused, "_reasons", {})
    card.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "IndexError: map::at" in fused.why_not()


def test_the_switch(card):
    card.setenv(fused.SWITCH, "0")
    assert "PIDKIT_KERNELS=0" in fused.why_not()


def test_not_under_autograd(card):
    class Fake:
        is_cuda, device = True, torch.device("cuda:0")

    assert not fused.runs_kernels(Fake())
    with torch.no_grad():
        assert fused.runs_kernels(Fake())


@pytest.fixture
def timed(monkeypatch):
    """timed(times, results): two attention kernels with these times and results; the tensors lie on the CPU."""
    monkeypatch.setattr(attention, "_chosen", {})
    q = torch.randn(1, 2, 8, 4)

    def choose(times, results=None):
        results = results or {}

        def by(backend, q, k, v):
            found = results.get(backend, 1.0)
            if isinstance(found, Exception):
                raise found
            return found * attention.sdpa(q, k, v)

        monkeypatch.setattr(attention, "_sdpa_by", by)
        monkeypatch.setattr(attention, "_milliseconds", lambda backend, *_: times[backend])
        attention.fastest_sdpa(q, q, q)
        return next(iter(attention._chosen.values()))

    return choose


@pytest.mark.parametrize("faster", [FLASH, CUDNN])
def test_the_faster_kernel_is_taken(timed, faster):
    assert timed({FLASH: 2.0, CUDNN: 2.0} | {faster: 1.0}) == faster
    assert attention.chosen_kernels() == [
        f"attention of up to 16 tokens, head dim 4, runs in {faster.name.lower()}",
    ]


def test_a_kernel_that_gives_something_else_or_fails_is_not(timed):
    for wrong in (1.5, float("nan")):
        assert timed({FLASH: 2.0, CUDNN: 1.0}, {CUDNN: wrong}) == FLASH
        attention._chosen.clear()
    attention._chosen.clear()
    assert timed({CUDNN: 1.0}, {FLASH: RuntimeError("No available kernel")}) == CUDNN


def test_with_neither_pytorch_chooses(timed):
    failed = {backend: RuntimeError("No available kernel") for backend in (FLASH, CUDNN)}
    assert timed({}, failed) is None
    assert attention.chosen_kernels() == []


def test_out_of_memory_while_trying_is_no_choice(monkeypatch, timed):
    monkeypatch.setattr(attention, "_sdpa_by", None)
    monkeypatch.setattr(attention, "_choose", fails_for_memory)
    q = torch.randn(1, 2, 8, 4)
    assert torch.equal(attention.fastest_sdpa(q, q, q), attention.sdpa(q, q, q))
    assert not attention._chosen


def fails_for_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_kernel_that_refuses_a_later_size_is_given_up(timed, monkeypatch):
    assert timed({FLASH: 2.0, CUDNN: 1.0}) == CUDNN
    monkeypatch.setattr(attention, "_sdpa_by", fails)
    q = torch.randn(1, 2, 9, 4)
    assert torch.equal(attention.fastest_sdpa(q, q, q), attention.sdpa(q, q, q))
    assert attention.chosen_kernels() == []


def test_out_of_memory_in_the_trial_is_forgotten(card):
    card.setattr(fused, "_trial", fails_for_memory)
    assert "no memory" in fused.why_not()
    card.setattr(fused, "_trial", lambda device: True)
    assert fused.why_not() is None


def test_each_length_and_head_dim_is_tried_once(monkeypatch):
    monkeypatch.setattr(attention, "_chosen", {})
    tried = []
    monkeypatch.setattr(attention, "_choose", lambda q, k, v: tried.append(q.shape) or SDPBackend.MATH)
    for tokens, width in ((8, 4), (9, 4), (15, 4), (16, 4), (8, 8), (8, 4)):
        q = torch.randn(1, 1, tokens, width)
        assert torch.allclose(attention.fastest_sdpa(q, q, q), attention.sdpa(q, q, q), atol=1e-6)
    assert [tuple(shape[2:]) for shape in tried] == [(8, 4), (16, 4), (8, 8)]


def test_attention_handed_in_is_used_even_if_it_counts_as_false():
    """An attention object with a length of 0 was once taken for none."""

    class Empty:
        def __len__(self):
            return 0

        def __call__(self, q, k, v):
            raise InterruptedError

    from support.sizes import SMALL

    net = PiDNetwork(SMALL, attention=Empty()).eval()
    x, number = torch.zeros(1, 3, 32, 32), torch.zeros(1)
    with pytest.raises(InterruptedError), torch.no_grad():
        features = torch.zeros(1, (32 // SMALL.patch_size) ** 2, SMALL.lq_width)
        net(
            x,
            number,
            torch.zeros(1, 2, SMALL.caption_width),
            lq_features=features,
            degrade_sigma=number,
        )
