"""Weights that a fused kernel reads come from ComfyUI: cast, patched, and asked for once per run."""

from __future__ import annotations

import importlib

import pytest
import torch


@pytest.fixture
def lend(comfyui):
    """lend(layer, dtype): what a kernel would get."""
    comfyui.load()
    ops = importlib.import_module(f"{comfyui.pack}.pid_core.ops")

    def call(layer, dtype=torch.float32):
        with ops.weights(layer, torch.device("cpu"), dtype) as lent:
            return lent

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


def test_asked_for_once_per_run(comfyui, lend):
    network = importlib.import_module(f"{comfyui.pack}.nodes.network")
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
    network = importlib.import_module(f"{comfyui.pack}.nodes.network")
    before = network._run
    patcher.model.begin_run()
    assert network._run is not before
    before = network._run
    positive, negative, canvas = comfyui.conditioning(patcher, torch.zeros(1, 16, 1, 1))
    comfyui.sample(patcher, positive, negative, canvas)
    assert network._run is not before
