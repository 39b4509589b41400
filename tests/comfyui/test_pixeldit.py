"""PixelDiT in PiD Loader: text to image, checked against ComfyUI's own PixelDiT with the same weights."""

from __future__ import annotations

import importlib

import pytest
import torch

from comfy_server import PromptError
from pid_core import load_network
from support.graphs import image_nodes, link
from support.inside import CORE_SIZES, SEED
from support.tiny import save_tiny, tiny_state_dict

SHAPE = (1, 3, 64, 96)


@pytest.fixture
def pixeldit(comfyui):
    return comfyui.load("pixeldit")[0]


@pytest.fixture
def cores(comfyui, monkeypatch):
    """ComfyUI's own, made small: its sizes are fixed in its code."""
    detection = importlib.import_module("comfy.model_detection")
    detect = detection.detect_unet_config
    sizes = {k: v for k, v in CORE_SIZES.items() if not k.startswith("lq_")}
    monkeypatch.setattr(detection, "detect_unet_config", lambda *a, **k: detect(*a, **k) | sizes)
    weights = tiny_state_dict("pixeldit", prefix="core.")
    patcher = importlib.import_module("comfy.sd").load_diffusion_model_state_dict(weights)
    assert type(patcher.model).__name__ == "PixelDiTT2I"
    return patcher


def text(seed):
    return torch.randn(1, 12, 24, generator=torch.Generator().manual_seed(seed))


def draw(comfyui, patcher, sampler="er_sde", steps=6, cfg=4.0):
    positive, negative = [[text(1), {}]], [[text(2), {}]]
    canvas = {"samples": torch.zeros(SHAPE)}
    return comfyui.sample(patcher, positive, negative, canvas, cfg=cfg, steps=steps, sampler=sampler)


@pytest.mark.parametrize("sampler", ["er_sde", "euler"])
def test_draws_what_comfyuis_own_draws(comfyui, pixeldit, cores, sampler):
    ours, theirs = draw(comfyui, pixeldit, sampler), draw(comfyui, cores, sampler)
    assert torch.allclose(ours, theirs, atol=2e-3 * float(theirs.abs().max()))


def test_one_euler_step_is_the_networks_velocity(comfyui, pixeldit):
    path = save_tiny(comfyui.folder / "pixeldit_again.safetensors", "pixeldit", caption=3)
    net = load_network(path)
    noise = comfyui.sample_module.prepare_noise(torch.zeros(SHAPE), SEED)
    with torch.no_grad():
        expected = noise - net(noise, torch.full((1,), 1000.0), text(1))
    out = draw(comfyui, pixeldit, "euler", steps=1, cfg=1.0)
    assert torch.allclose(out, expected, atol=1e-4)


def test_levels_are_shifted_by_four(comfyui, pixeldit, cores):
    levels = [
        comfyui.samplers.calculate_sigmas(m.get_model_object("model_sampling"), "simple", 30) for m in (pixeldit, cores)
    ]
    assert torch.equal(*levels) and levels[0][0] == 1 and levels[0][15] == pytest.approx(0.8)
    (sigmas,) = comfyui.nodes.PiDKitSigmas.execute(30, pixeldit).args
    assert torch.equal(sigmas, levels[0])


def test_another_shift_can_be_set(comfyui, pixeldit):
    shifted = importlib.import_module("comfy_extras.nodes_model_advanced").ModelSamplingSD3().patch(pixeldit, 2.0)[0]
    assert not torch.allclose(draw(comfyui, shifted), draw(comfyui, pixeldit), atol=1e-2)


def test_pid_conditioning_says_that_it_takes_no_latent(comfyui, pixeldit):
    with pytest.raises(ValueError, match="PixelDiT, which draws from text alone and takes no latent"):
        comfyui.conditioning(pixeldit, torch.zeros(1, 16, 1, 1))


def test_a_conditioning_with_a_latent_is_refused(comfyui, pixeldit):
    made = comfyui.conditioning(comfyui.load()[0], torch.zeros(1, 16, 2, 3))
    with pytest.raises(ValueError, match="the conditioning carries a latent, but this checkpoint is PixelDiT"):
        comfyui.sample(pixeldit, *made)


def test_the_plain_graph_runs(comfy):
    path = comfy.models / "diffusion_models" / "tiny_pixeldit.safetensors"
    save_tiny(path, "pixeldit", caption=3, prefix="core.", metadata=False)
    canvas = {"class_type": "EmptyChromaRadianceLatentImage", "inputs": {"width": 96, "height": 64, "batch_size": 1}}
    graph = {
        "model": {"class_type": "PiDKitLoader", "inputs": {"model_name": path.name, "dtype": "auto"}},
        "canvas": canvas,
        "text": {"class_type": "TestText", "inputs": {"width": 24}},
        "sampler": {
            "class_type": "KSampler",
            "inputs": {
                "model": link("model"),
                "positive": link("text"),
                "negative": link("text"),
                "latent_image": link("canvas"),
                "seed": 1,
                "steps": 3,
                "cfg": 4.0,
                "sampler_name": "er_sde",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        },
    } | image_nodes("sampler")
    assert comfy.images(comfy.queue(graph), "png")[0].shape == (64, 96, 3)
    graph["model"]["inputs"]["schedule"] = "distilled"
    with pytest.raises(PromptError, match="no distilled form"):
        comfy.queue(graph)
