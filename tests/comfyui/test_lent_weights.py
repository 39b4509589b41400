"""Weights that a fused kernel reads come from ComfyUI: cast, patched, and asked for once per run."""

from __future__ import annotations

import importlib

import pytest
import torch


@pytest.fixture
def lend(comfyui):
    """lend(layer, dtype): what a kernel would get."""
    comfyui.load()
    ops = importlib.import_module(f"{comfyui.pack}.pid_core.model.ops")

    def call(layer, dtype=torch.float32):
        return ops.weights(layer, torch.device("cpu"), dtype)

    return call


@pytest.mark.parametrize("kind", ["disable_weight_init", "manual_cast"])
def test_cast_and_patched(lend, kind):
    operations = getattr(importlib.import_module("comfy.ops"), kind)
    layer = operations.Linear(3, 2, dtype=torch.bfloat16)
    layer.weight.data.fill_(2)
    layer.bias.data.fill_(1)
    layer.weight_function = [lambda weight: weight + 0.5]  # as a LoRA on a model in little memory
    weight, bias = lend(layer)
    assert weight.dtype == bias.dtype == torch.float32
    assert (weight == 2.5).all() and (bias == 1).all()
    assert lend(operations.RMSNorm(4, eps=1e-6))[1] is None


def test_a_graph_holds_how_they_are_asked_for(comfyui):
    """Weights that were lent once would be those of the run that compiled it."""
    comfyui.load()
    ops = importlib.import_module(f"{comfyui.pack}.pid_core.model.ops")
    layer = importlib.import_module("comfy.ops").manual_cast.Linear(3, 2, dtype=torch.bfloat16)
    layer.weight.data.fill_(2)
    layer.bias.data.fill_(1)
    torch._dynamo.reset()
    lent = torch.compile(
        lambda: ops.weights(layer, torch.device("cpu"), torch.float32), backend="eager", fullgraph=True
    )
    with torch.no_grad():
        for value in (2, 7):
            layer.weight.data.fill_(value)
            weight, bias = lent()
            assert weight.dtype == torch.float32 and (weight == value).all() and (bias == 1).all()
    torch._dynamo.reset()


def test_asked_for_once_per_run(comfyui, lend):
    network = importlib.import_module(f"{comfyui.pack}.nodes.comfy.network")
    layer = importlib.import_module("comfy.ops").manual_cast.RMSNorm(4, eps=1e-6)
    asked = []
    layer.weight_function = [lambda weight: asked.append(1) or weight]
    for _ in range(3):
        lend(layer)
    assert len(asked) == 1
    network.weights_changed()
    layer.weight.data.fill_(7)
    assert (lend(layer)[0] == 7).all() and len(asked) == 2
    lend(layer, torch.bfloat16)
    assert len(asked) == 3


def test_a_run_and_a_hook_ask_again(comfyui):
    patcher, _ = comfyui.load()
    network = importlib.import_module(f"{comfyui.pack}.nodes.comfy.network")
    before = network._run
    patcher.model.begin_run()
    assert network._run is not before
    before = network._run
    positive, negative, canvas = comfyui.conditioning(patcher, torch.zeros(1, 16, 1, 1))
    comfyui.sample(patcher, positive, negative, canvas)
    assert network._run is not before


def test_a_hook_on_one_conditioning_does_not_reach_the_other(comfyui, monkeypatch):
    """What is lent in every call is what the layer itself has then."""
    hooks = importlib.import_module("comfy.hooks")
    ops = importlib.import_module(f"{comfyui.pack}.pid_core.model.ops")
    patcher, _ = comfyui.load()
    network = patcher.model.diffusion_model
    layer = network.patch_blocks[0].norm_x1
    texts = [[[torch.randn(1, 3, 24), {}]] for _ in range(2)]
    positive, negative, canvas = comfyui.conditioning(
        patcher, torch.zeros(1, 16, 1, 1), positive=texts[0], negative=texts[1]
    )
    hook = hooks.WeightHook(strength_model=1.0)
    hook.weights = {"diffusion_model.patch_blocks.0.norm_x1.weight": ("diff", (torch.full(layer.weight.shape, 5.0),))}
    hook.need_weight_init = False
    group = hooks.HookGroup()
    group.add(hook)
    positive = [[text, {**options, "hooks": group}] for text, options in positive]
    lent, true, forward = [], [], type(network)._forward

    def looked_at(self, x, *args, **kwargs):
        one = torch.zeros(1, layer.weight.shape[0])
        one[0, 0] = 1
        true.append(layer(one)[0, 0] / one.shape[1] ** 0.5)  # of a vector with one value, the norm is the root
        lent.append(ops.weights(layer, x.device, torch.float32)[0][0].clone())
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(type(network), "_forward", looked_at)
    comfyui.sample(patcher, positive, negative, canvas, cfg=3.0, steps=3)
    assert len({round(float(value), 2) for value in lent}) == 2
    assert torch.allclose(torch.stack(lent), torch.stack(true), atol=1e-2)
