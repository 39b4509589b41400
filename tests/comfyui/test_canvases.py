"""Whole canvases that live on the device while ComfyUI samples, against what the planner counts."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from benchmarks.hardware import FRAME_IN_COMFYUI, IN_COMFYUI
from support.narrow_device import DEVICE
from support.sizes import V15
from support.stand_in import DeviceBytes

SIDE = 512
CANVAS = 4 * 3 * SIDE**2


@pytest.fixture
def counted(comfyui, card, monkeypatch):
    """counted(sampler, cfg, windows) -> (beside a network call, at most), in canvases; the network makes only zeros."""
    monkeypatch.setattr(comfyui.module("pid_core.windows.memory"), "FILLING_PIXELS", 0)  # one window at a time
    monkeypatch.setattr(comfyui.module("pid_core.model.chunks"), "CANVAS_VALUES", CANVAS // 128)
    network = type(comfyui.load()[0].model.diffusion_model)
    features = lambda self, lq, h, w, *_: torch.zeros(1, 1, 1, device=DEVICE).expand(1, h * w // 256, 16)  # noqa: E731
    monkeypatch.setattr(network, "encode_lq", features)

    def run(sampler, cfg, windows):
        patcher, _ = comfyui.load("flux", "v1.5", disable_dynamic=True)
        made = comfyui.conditioning(patcher, torch.zeros(1, 16, SIDE // 32, SIDE // 32))
        if windows:
            patcher = comfyui.nodes.PiDKitContextWindow.execute(patcher, "manual", 256, 64, "pyramid").args[0]
        calls = []
        with DeviceBytes() as live:

            def nothing(self, x, *args, **kwargs):
                calls.append(live.now)
                return torch.zeros_like(x)

            monkeypatch.setattr(network, "_forward", nothing)
            card(patcher)
            before = live.peak = live.now
            if sampler == "student":
                module = comfyui.module("nodes.decode")
                conditioned = type("Made", (), {"positive": made[0], "negative": made[1], "canvas": made[2]})
                module.sample(patcher, conditioned, 4, 0, callback=lambda *_: None)
            else:
                steps = 4 if sampler == "lcm" else 6
                comfyui.sample(patcher, *made, cfg=cfg, sampler=sampler, steps=steps)
        return (max(calls) - before) / CANVAS, (live.peak - before) / CANVAS

    return run


@pytest.mark.parametrize("windows", [False, True], ids=["one frame", "windows"])
@pytest.mark.parametrize(
    ("sampler", "cfg"), [("student", 1.0), ("lcm", 1.0), ("lcm", 3.0), ("euler", 1.0), ("dpmpp_2m", 5.0)]
)
def test_no_more_than_are_counted(comfyui, counted, sampler, cfg, windows):
    module, student = comfyui.module("nodes.comfy.canvases"), comfyui.module("nodes.comfy.student").StudentSampler
    kind = student(None) if sampler == "student" else None
    expected = module.canvases(kind, 1 if cfg == 1 else 2, windows)
    in_call, peak = counted(sampler, cfg, windows)
    size = 0.25 if windows else 1  # of a call
    live = expected.in_call + size * expected.of_call
    assert live - 1.5 <= in_call <= live + 0.1
    # behind the call its result, as velocity and as x0, takes the place of what the call itself needed
    assert peak <= max(expected.between, in_call + 4 * size) + 0.1


def test_the_tables_of_cards_count_the_same(comfyui):
    """docs/hardware.md is written without ComfyUI."""
    student = comfyui.module("nodes.comfy.student").StudentSampler(None)
    canvases = comfyui.module("nodes.comfy.canvases").canvases
    assert tuple(canvases(student, 1, True)) == tuple(IN_COMFYUI)
    assert tuple(canvases(student, 1, False)) == tuple(FRAME_IN_COMFYUI)


@pytest.fixture
def planned(comfyui, monkeypatch):
    """planned(side, gigabytes) -> PiD Decode's plan for a v1.5 network in bfloat16, on a card with so much free."""
    model, memory = comfyui.model, comfyui.module("nodes.comfy.window_memory")
    handlers, student = comfyui.module("nodes.comfy.window_handler"), comfyui.module("nodes.comfy.student")
    config = model.PiDModelConfig(model.PiDConfig(**asdict(V15)))
    config.set_inference_dtype(torch.bfloat16, None)
    base = model.PiDKitModel(config, None)
    monkeypatch.setattr(memory, "network_kind", lambda *_: "kernels")
    weights = 2 * sum(p.numel() for p in base.diffusion_model.parameters())
    card = SimpleNamespace(
        model=base,
        load_device=torch.device("cuda"),
        model_size=lambda: weights,
        model_options={},
        get_model_object=lambda name: base.diffusion_model,
    )
    monkeypatch.setattr(memory.management, "current_loaded_models", [])
    monkeypatch.setattr(memory.management, "extra_reserved_memory", lambda: 0.6e9)

    def run(side, gigabytes):
        monkeypatch.setattr(memory.management, "get_free_memory", lambda *a: gigabytes * 1e9)
        handler = handlers.WindowHandler(card, handlers.WindowSettings())
        shape, found = (1, 3, side, side), []
        sampling = SimpleNamespace(canvases=lambda windowed: canvases(student.StudentSampler(None), 1, windowed))
        monkeypatch.setattr(model, "current_run", lambda: sampling)
        canvases = comfyui.module("nodes.comfy.canvases").canvases

        def loaded(patcher, shape, *args, **kwargs):
            found.append(handler.plan(handler.memory(patcher, shape[0]), *shape[2:]))

        model.plan_memory(loaded, card, shape, model_options={"context_handler": handler})
        return found[0]

    return run


@pytest.mark.parametrize(("side", "gigabytes"), [(4096, 5.2), (8192, 7.2)])
def test_a_large_canvas_fits_a_small_card(planned, side, gigabytes):
    """What is free on a card of 6 and of 8 GB; ComfyUI keeps 0.6 GB for itself."""
    plan = planned(side, gigabytes)
    assert min(plan.size) >= V15.window_min and plan.overlap == 512


def test_a_canvas_that_does_not_fit_says_what_needs_the_memory(comfyui, planned):
    with pytest.raises(ValueError) as caught:
        planned(32768, 7.2)
    line = str(caught.value)
    assert "too little memory for 32768 x 32768" in line and "\n" not in line
    assert "between two calls of the network" in line or "for the latent's projector" in line
