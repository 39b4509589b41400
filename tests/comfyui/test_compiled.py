"""PiD Loader's compile choice in the real ComfyUI, and other nodes that compile."""

from __future__ import annotations

import functools
import importlib

import pytest
import torch
from torch._dynamo.utils import counters

from pid_core.checkpoints.convert import convert
from pid_core.latents.rgb import to_rgb_latent
from pid_core.model.cost import peak_bytes
from support.sizes import PACKABLE_SIDES
from support.tiny import save_tiny

GRAPHS = {"blocks": 3, "whole": 1}  # of a size: a patch block, the last one, a pixel block
NEAR = 1e-4  # float32, pixels from -1 to 1
COMPILING = "compiling, which the first run of a size waits for"


class Counted:
    """A backend that runs graphs as they are."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, example_inputs, **_):
        self.graphs.append(graph)
        return graph.forward


@pytest.fixture
def backend(comfyui, monkeypatch):
    """Stands in PyTorch's own compiler's place, which takes minutes."""
    torch._dynamo.reset()
    counters.clear()
    made = Counted()
    module = comfyui.module("nodes.comfy.compiled")
    monkeypatch.setattr(module, "Compiled", functools.partial(module.Compiled, backend=made))
    yield made
    torch._dynamo.reset()


@pytest.fixture(autouse=True)
def texts(comfyui, monkeypatch):
    said = []
    for name in ("node_text", "progress", "window_handler"):
        monkeypatch.setattr(comfyui.module(f"nodes.comfy.{name}"), "send_text", lambda node, *lines: said.append(lines))
    return said


@pytest.fixture
def load(comfyui, monkeypatch):
    """load(compile): by PiD Loader, the same tiny file each time."""
    folder_paths = importlib.import_module("folder_paths")
    path = save_tiny(comfyui.folder / "compiled.safetensors", "rgb", caption=3, window_min=32, window_max=64)
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, name: str(path))
    return lambda compile="off": comfyui.nodes.PiDKitLoader.execute(path.name, "float32", compile=compile).args[0]


def decode(comfyui, patcher, side=12, **inputs):
    picture = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(side))
    options = {"degrade_sigma": 0.1, "seed": 3, "window_mode": "off"} | inputs
    return comfyui.decode(patcher, to_rgb_latent(picture), node_id="5", **options)


def test_a_graph_per_size_serves_all_steps_sigmas_and_runs(comfyui, backend, load, texts):
    plain, patcher = load(), load("blocks")
    for sigma in (0.1, 0.6):
        found = decode(comfyui, patcher, degrade_sigma=sigma)
        assert (found - decode(comfyui, plain, degrade_sigma=sigma)).abs().max() <= NEAR
    assert len(backend.graphs) == GRAPHS["blocks"] and not counters["graph_break"]
    assert texts[[COMPILING in lines for lines in texts].index(True)][0] == COMPILING
    texts.clear()
    decode(comfyui, patcher)
    assert len(backend.graphs) == GRAPHS["blocks"]
    assert comfyui.module("nodes.comfy.network").compiled_of(patcher.model.diffusion_model).how == "blocks"
    assert not [lines for lines in texts if COMPILING in lines]


def test_another_compute_dtype_is_compiled_anew_and_the_node_says_so(comfyui, backend, load, texts):
    patcher = load("blocks")
    decode(comfyui, patcher)
    other = patcher.clone()
    other.set_model_compute_dtype(torch.bfloat16)  # as ComfyUI's node ModelComputeDtype does
    texts.clear()
    decode(comfyui, other)
    assert len(backend.graphs) == 2 * GRAPHS["blocks"]
    assert [lines for lines in texts if COMPILING in lines]


def test_windows_run_one_at_a_time_and_share_their_graphs(comfyui, backend, load):
    windows = {"window_mode": "manual", "window_size": 32, "window_overlap": 8, "steps": 1}
    plain, patcher = load(), load("blocks")
    found = decode(comfyui, patcher, side=20, **windows)
    assert (found - decode(comfyui, plain, side=20, **windows)).abs().max() <= NEAR
    assert len(backend.graphs) == GRAPHS["blocks"]
    nine = comfyui.module("pid_core.windows.plan").plan_windows(80, 80, 32, 8, align=8)
    memories = (comfyui.module("nodes.comfy.window_memory").memory_of(p, p.model.config, 1) for p in (plain, patcher))
    assert [memory.batch(nine) for memory in memories] == [9, 1]


def test_an_attention_of_the_user_s_choice_makes_no_graph_per_step(comfyui, backend, load):
    def override(func, *args, **kwargs):
        return 0.5 * func(*args, **kwargs)

    patcher, plain = load("blocks").clone(), load().clone()
    for model in (patcher, plain):
        model.model_options["transformer_options"]["optimized_attention_override"] = override
    found, expected = decode(comfyui, patcher), decode(comfyui, plain)
    assert (found - expected).abs().max() <= NEAR < (expected - decode(comfyui, load())).abs().max()
    assert len(backend.graphs) == GRAPHS["blocks"]


def test_weights_that_do_not_fit_are_not_compiled_and_the_node_says_so(comfyui, backend, load, texts, monkeypatch):
    patcher = load("blocks")
    step = type(patcher.model)._apply_model

    def lowvram(self, *args, **kwargs):
        self.model_lowvram = True
        return step(self, *args, **kwargs)

    monkeypatch.setattr(type(patcher.model), "_apply_model", lowvram)
    decode(comfyui, patcher)
    assert not backend.graphs
    assert any("not compiled in this run" in line for line in texts[-1])


def test_a_compiler_that_fails_costs_no_picture(comfyui, load, texts, monkeypatch):
    def broken(graph, example_inputs):
        raise RuntimeError("Failed to find C compiler.\nPlease specify CC")

    module = comfyui.module("nodes.comfy.compiled")
    monkeypatch.setattr(module, "Compiled", functools.partial(module.Compiled, backend=broken))
    expected = decode(comfyui, load())
    assert torch.equal(decode(comfyui, load("blocks")), expected)
    assert any("not compiled: torch.compile failed" in line and "C compiler" in line for line in texts[-1])


def test_torch_compile_model_makes_one_graph_without_a_break(comfyui, backend, load, monkeypatch):
    """ComfyUI's own node."""
    extras = importlib.import_module("comfy_extras.nodes_torch_compile")
    patcher = extras.TorchCompileModel.execute(load(), "inductor").args[0]
    set_wrapper = importlib.import_module("comfy_api.torch_helpers").set_torch_compile_wrapper
    set_wrapper(model=patcher, backend=backend, options={"guard_filter_fn": extras.skip_torch_compile_dict})
    found = decode(comfyui, patcher)
    assert (found - decode(comfyui, load())).abs().max() <= NEAR
    decode(comfyui, patcher, degrade_sigma=0.5)
    assert len(backend.graphs) == 1 and not counters["graph_break"]


def test_what_torch_compile_model_runs_is_planned_as_it_runs(comfyui, load, monkeypatch):
    """Where the kernels run uncompiled: in a graph that is not ours they do not, and all tokens are one chunk."""
    model, compiled = comfyui.module("nodes.comfy.model"), comfyui.module("nodes.comfy.compiled")
    monkeypatch.setattr(comfyui.module("nodes.comfy.window_memory"), "kind_of", lambda device: "kernels")
    patcher = load()
    config, shape = patcher.model.config, [1, 3, 512, 512]
    node = importlib.import_module("comfy_extras.nodes_torch_compile").TorchCompileModel
    others = node.execute(patcher, "inductor").args[0]
    assert not compiled.is_compiled(patcher) and compiled.is_compiled(others)
    planned, prepare = [], model.plan_memory
    for one in (patcher, others):
        prepare(lambda *_, one=one, **__: planned.append(one.model.memory_required(shape)), one, shape)
    kinds = [peak_bytes(config, 512, 512, dtype_bytes=4, kind=kind) for kind in ("kernels", "compiled")]
    assert kinds[0] < kinds[1]
    assert planned[1] - planned[0] == kinds[1] - kinds[0]


@torch.inference_mode()
def test_a_quantised_file_compiles_whole(comfyui, backend):
    folder = comfyui.folder
    plain = save_tiny(folder / "plain.safetensors", "flux", "v1.5", caption=3, dtype=torch.bfloat16, **PACKABLE_SIDES)
    path, _ = convert(plain, folder / "fp8.safetensors", to="fp8")
    latent = torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(1))
    outs = []
    for choice in ("off", "whole"):
        patcher = comfyui.model.load_model(str(path), compile=choice)
        outs.append(comfyui.sample(patcher, *comfyui.conditioning(patcher, latent, 0.1)))
    assert patcher.model.diffusion_model.driver.compiled.why_not is None and len(backend.graphs) == GRAPHS["whole"]
    assert (outs[0] - outs[1]).abs().max() <= NEAR
