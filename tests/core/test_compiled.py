"""Compiled networks: how many graphs are made, that none breaks, and that pixels stay the same."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from contextlib import contextmanager

import pytest
import torch
from torch._dynamo.utils import counters

from pid_core import PiDNetwork
from pid_core.model import compiled, fused, positions
from pid_core.model.attention import sdpa
from pid_core.model.compiled import Compiled
from pid_core.model.cost import peak_bytes
from pid_core.sampling.predict import predict_x0_by_windows
from pid_core.windows.plan import plan_windows
from pid_core.windows.run import WindowRun
from support.old import NO_CARD, skip_before
from support.sizes import SMALL
from support.small import seeded

CONFIG = dataclasses.replace(SMALL, hidden_size=32, num_heads=2, mlp_size=40, pixel_depth=2, lq_width=16)
GRAPHS = {"blocks": 3, "whole": 1}  # of a size: a patch block, the last one, a pixel block
NEAR = 2e-5  # float32, values of about 1: only the order of sums differs


class Counted:
    """A backend that runs graphs as they are."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, example_inputs):
        self.graphs.append(graph)
        return graph.forward

    def operations(self) -> set[str]:
        return {str(node.target) for graph in self.graphs for node in graph.graph.nodes}


@pytest.fixture
def backend():
    torch._dynamo.reset()
    counters.clear()
    yield Counted()
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def net():
    return seeded(PiDNetwork(CONFIG).eval())


@contextmanager
def compiling(net, *how, **options):
    net.driver.compiled = Compiled(*how, **options)
    try:
        yield net.driver.compiled
    finally:
        net.driver.compiled = None


def call(net, side: int = 32, t: float = 0.866, sigma: float = 0.1, caption: int = 8, **options):
    generator = torch.Generator().manual_seed(side)
    x, text, features = (
        torch.randn(*shape, generator=generator)
        for shape in (
            (1, 3, side, side),
            (1, caption, CONFIG.caption_width),
            (1, (side // CONFIG.patch_size) ** 2, CONFIG.lq_width),
        )
    )
    given = {"lq_features": features, "degrade_sigma": torch.tensor([sigma])} | options
    with torch.no_grad():
        return net(x, torch.tensor([1000 * t]), text, **given)


@pytest.mark.parametrize("how", ["blocks", "whole"])
def test_a_size_is_compiled_once_for_all_windows_steps_and_sigmas(net, backend, how):
    plan = plan_windows(80, 80, 48, 16, align=8)
    generator = torch.Generator().manual_seed(0)
    x, features = (torch.randn(*shape, generator=generator) for shape in ((1, 3, 80, 80), (1, 100, CONFIG.lq_width)))
    caption = torch.randn(1, 8, CONFIG.caption_width, generator=generator)
    told, heard = [], []

    @contextmanager
    def while_compiling():
        told.append(len(backend.graphs))
        yield
        told.append(len(backend.graphs))

    with compiling(net, how, backend=backend) as made, torch.no_grad():
        made.while_compiling = while_compiling
        for t, sigma in ((0.999, 0.0), (0.866, 0.1), (0.342, 0.7)):
            given = x, torch.tensor(t), caption, features, torch.tensor([sigma])
            listener = lambda done: heard.append(done)  # noqa: E731, another one every time
            found = call(net, 32, t, sigma, on_part=listener), predict_x0_by_windows(net, *given, run=WindowRun(plan))
            with made.off():
                expected = call(net, 32, t, sigma), predict_x0_by_windows(net, *given, run=WindowRun(plan))
            for a, b in zip(found, expected, strict=True):
                assert (a - b).abs().max() <= NEAR
    assert plan.count == 4 and told == [GRAPHS[how] * n for n in (0, 1, 1, 2)]
    assert len(backend.graphs) == told[-1]
    # a graph tells nobody how far it is; between blocks it can be told
    parts = CONFIG.patch_depth + CONFIG.pixel_depth + 1
    assert len(heard) == (3 * parts if how == "blocks" else 0)
    assert not counters["graph_break"] and made.why_not is None


def test_attention_is_chosen_when_it_runs(net, backend, monkeypatch):
    """A graph that held the choice would hold what is right on tensors without values."""
    asked = []
    monkeypatch.setattr("pid_core.model.attention.sdpa", lambda q, k, v: asked.append(q.shape) or sdpa(q, k, v))
    with compiling(net, "blocks", backend=backend):
        call(net)
    assert len(asked) == CONFIG.patch_depth + CONFIG.pixel_depth
    assert "pidkit.attend" in backend.operations()


def test_no_graph_is_made_beyond_the_limit(net, backend, monkeypatch, caplog):
    """PyTorch's own limit is eight graphs, after which it runs uncompiled and says nothing to the user."""
    monkeypatch.setattr(compiled, "MOST_GRAPHS", 4)
    with compiling(net, "blocks", backend=backend) as made, caplog.at_level(logging.WARNING, logger="pidkit"):
        call(net, 16)
        assert len(backend.graphs) == 3 and made.why_not is None
        found = call(net, 24)
        assert "4 graphs are there" in made.why_not and made.why_not in caplog.text
        again, graphs = call(net, 16), len(backend.graphs)
        with made.off():
            assert torch.equal(found, call(net, 24))
            assert torch.allclose(again, call(net, 16), atol=NEAR)
    assert graphs == len(backend.graphs) <= 4


def broken(graph, example_inputs):
    raise RuntimeError("Failed to find C compiler.\nPlease specify CC")


def test_what_cannot_be_compiled_runs_uncompiled_and_says_why(net, backend, caplog):
    expected = call(net)
    with compiling(net, "blocks", backend=broken) as made, caplog.at_level(logging.WARNING, logger="pidkit"):
        for _ in range(2):
            assert torch.equal(call(net), expected)
    assert "C compiler" in made.why_not and "\n" not in made.why_not
    assert caplog.text.count("not compiled") == 1


def test_a_repeat_in_float32_is_not_compiled(net, backend):
    with compiling(net, "blocks", backend=backend), net.in_float32():
        call(net)
    assert not backend.graphs


def test_the_network_compiles_whole_by_others_without_a_break(net, backend):
    """As ComfyUI's TorchCompileModel does it."""
    call(torch.compile(net, backend=backend, fullgraph=True))
    assert len(backend.graphs) == 1


def test_a_failure_of_what_runs_is_no_failure_of_the_compiler(net, backend):
    def stop(fraction):
        raise KeyError("stopped")

    with compiling(net, "blocks", backend=backend) as made:
        with pytest.raises(KeyError, match="stopped"):
            call(net, 16, on_part=stop)
        assert made.why_not is None and not made.active


def test_choices():
    with pytest.raises(ValueError, match="off, blocks, whole, got most"):
        Compiled("most")


def test_an_old_pytorch_is_named(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.4.1+cu124")
    with pytest.raises(ValueError, match=r"needs PyTorch 2\.5 or newer, this is 2\.4\.1"):
        Compiled("blocks")


@pytest.mark.parametrize("head_dim", [8, 72])
def test_a_graph_turns_heads_to_the_same_bits(monkeypatch, head_dim):
    """The sums that a graph makes of RoPE are those of the plain formula."""
    x = torch.randn(2, 15, 3, head_dim, generator=torch.Generator().manual_seed(0))
    rope = positions.image_rope(3, 5, head_dim, reference=4)
    monkeypatch.setattr(positions, "COMPLEX_DEVICES", ())
    plain = positions.rotate(x, rope)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(positions.rotate(x, rope), plain)


@pytest.mark.parametrize("kernels", [True, False])
def test_kernels_stay_operations_of_the_graph(backend, kernels):
    pytest.importorskip("triton", reason="NOT TESTED: the fused kernels in a compiled graph, for Triton is missing")
    skip_before("torch", (2, 6), NO_CARD)
    from benchmarks.gpu_bytes import Inputs, _fake

    config = dataclasses.replace(CONFIG, pixel_hidden_size=16, pixel_mlp_size=64)
    with torch.no_grad(), _fake(), fused.kernels(True):
        net = PiDNetwork(config, device="cuda").eval()
        given = Inputs(config, 32, 32, torch.float32)
        with compiling(net, "blocks", kernels=kernels, backend=backend) as made:
            options = {"lq_features": given.features, "degrade_sigma": given.sigma}
            net(given.x, given.t, given.caption, **options)
    assert made.why_not is None and len(backend.graphs) == GRAPHS["blocks"]
    ours = {name.removeprefix("pidkit.") for name in backend.operations() if name.startswith("pidkit")} - {"attend"}
    expected = {"norm_modulate", "gate_add_norm_modulate", "gate_add", "silu_mul", "place_heads"}
    assert ours == (expected | {"pixel_begin", "pixel_end"} if kernels else set())


def test_small_calls_are_fused_by_the_compiler_large_ones_by_the_kernels(monkeypatch):
    """As measured: see FEW_PIXELS."""
    card = torch.device("cuda")
    monkeypatch.setattr(fused, "kind_of", lambda device: "kernels" if device.type == "cuda" else device.type)
    kinds = [Compiled("blocks").kind_of(card, side**2) for side in (1024, 2048)]
    assert kinds == ["compiled", "compiled kernels"]
    assert [Compiled("blocks", kernels=on).kind_of(card, 1) for on in (True, False)] == kinds[::-1]
    assert Compiled("blocks").kind_of(torch.device("cpu"), 2048**2) == "compiled"


def test_what_a_compiled_call_needs_is_planned():
    """All tokens are in one chunk, so it is more; the kernels make fewer copies."""
    chunks = peak_bytes(SMALL, 2048, 2048, kind="cuda")
    plain = peak_bytes(SMALL, 2048, 2048, kind="compiled")
    assert peak_bytes(SMALL, 2048, 2048, kind="compiled kernels") <= plain
    assert plain > chunks


@pytest.mark.skipif(shutil.which("g++") is None, reason="NOT TESTED: PyTorch's own compiler, for there is no g++")
def test_pytorch_s_own_compiler_gives_the_same_and_leaves_the_thread_as_it_is(backend):
    config = dataclasses.replace(CONFIG, patch_depth=1, pixel_depth=1)
    net = seeded(PiDNetwork(config).eval())
    # It would try each kind of vector instructions first, for seconds.
    with torch._inductor.config.patch({"cpp.simdlen": 1}), compiling(net, "blocks") as made:
        found = call(net)
        with made.off():
            expected = call(net)
    assert made.why_not is None and not compiled.flushes_to_zero()
    assert (found - expected).abs().max() <= NEAR * expected.abs().max()
