"""How often a decode waits for the GPU: the host should be ahead of it all the time."""

from __future__ import annotations

import pytest
import torch

from support.stand_in import Waits

LATENT = torch.randn(1, 16, 3, 4, generator=torch.Generator().manual_seed(4))


def decode(comfyui, patcher, steps, mode):
    windows = {"window_mode": mode, "window_size": 64, "window_overlap": 32}
    return comfyui.decode(patcher, LATENT, steps=steps, latent_format="flux", **windows)


def test_the_stand_in_sees_a_model_move_there(comfyui, card):
    with Waits() as waits:
        card(comfyui.load("flux", "v1.5", disable_dynamic=True)[0])
    assert sum(waits.others.values()) > 100


@pytest.mark.parametrize("mode", ["off", "manual"])
def test_a_step_of_pid_decode_waits_once_behind_all_that_it_launches(comfyui, card, mode):
    patcher, _ = comfyui.load("flux", "v1.5", disable_dynamic=True)
    expected = decode(comfyui, patcher, 1, mode)
    with Waits():
        card(patcher)
    found = []
    for steps in (1, 2, 4):
        with Waits() as waits:
            out = decode(comfyui, patcher, steps, mode)
        assert waits.ran > 500
        found.append(waits)
        if steps == 1:
            assert (out - expected).abs().max() < 1e-3
    assert found[2].ours - found[1].ours == {"guard.py:checked_together": 2}
    assert not found[2].others - found[1].others
    assert sum(found[2].ours.values()) < 30  # the rest once a run: texts, noise levels, latent, schedule, result


def test_guidance_in_ksampler_waits_no_more_of_ours(comfyui, card):
    """lcm itself waits in each step, to see whether its schedule is over."""
    patcher, _ = comfyui.load("flux", "v1.5", disable_dynamic=True)
    made = comfyui.conditioning(patcher, LATENT)
    patcher = comfyui.nodes.PiDKitContextWindow.execute(patcher, "manual", 64, 32, "pyramid").args[0]
    with Waits():
        card(patcher)
    found = []
    for steps in (2, 4):
        with Waits() as waits:
            out = comfyui.sample(patcher, *made, steps=steps, cfg=3.0)
        assert torch.isfinite(out).all()
        found.append(waits)
    assert found[1].ours - found[0].ours == {"guard.py:checked_together": 2}
    assert found[1].others["sampling.py:sample_lcm"] == 4
