"""Early stop in the real ComfyUI: with a model whose answer is known, the latent PiD gets is known too."""

from __future__ import annotations

import importlib

import pytest
import torch

from pid_core import LATENT_FAMILIES, decode, load_network
from pid_core.sampling.comfy_noise import comfy_noise, comfy_step_noise
from support.failures import fails
from support.graphs import decode_graph, link, put_latent, saved_pixels
from support.inside import SEED
from support.tiny import put_tiny

FAMILIES = {  # PiD family: ComfyUI's model class, its ModelType, the generator's name here, shape of its latent
    "flux": ("Flux", "FLUX", "flux", (1, 16, 4, 6)),
    "zimage": ("ZImage", "FLOW", "zimage", (1, 16, 4, 6)),
    "flux2": ("Flux2", "FLUX", "flux2", (1, 128, 2, 3)),
    "sd3": ("SD3", "FLOW", "sd3", (1, 16, 4, 6)),
    "qwenimage": ("QwenImage", "FLOW", "qwenimage", (1, 16, 1, 4, 6)),
    "sdxl": ("SDXL", "EPS", "sdxl", (1, 4, 4, 6)),
}
SKELETON = {"disable_unet_model_creation": True, "hidden_size": 3072}  # the sizes its configuration asks for
STEPS = 10


@pytest.fixture(params=FAMILIES)
def known(comfyui, request):
    """A MODEL of ComfyUI's that predicts one clean latent, whatever it is shown, and that latent (model space)."""
    base = importlib.import_module("comfy.model_base")
    name, kind, generator, shape = FAMILIES[request.param]
    config = getattr(importlib.import_module("comfy.supported_models"), name)(SKELETON)
    config.set_inference_dtype(torch.float32, None)
    net = base.BaseModel(config, getattr(base.ModelType, kind))
    net.diffusion_model = torch.nn.Linear(1, 1)
    net.diffusion_model.dtype = torch.float32
    cpu = torch.device("cpu")
    patcher = importlib.import_module("comfy.model_patcher").ModelPatcher(net, cpu, cpu)
    clean = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    calls = []

    def predict(_, args):
        calls.append(args["timestep"])
        return clean.expand_as(args["input"])

    patcher.set_model_unet_function_wrapper(predict)
    family = "flux" if request.param == "zimage" else request.param
    return patcher, clean, calls, family, generator


def stopped(comfyui, known, sampler="euler", step=7):
    """BasicScheduler, PiD Early Stop, SamplerCustom, PiD Latent From Noisy: noise, schedule, level, sigma, latent."""
    patcher, clean, _, family, generator = known
    sampling = patcher.get_model_object("model_sampling")
    schedule = comfyui.samplers.calculate_sigmas(sampling, "simple", STEPS)
    sigmas, sigma = comfyui.nodes.PiDKitEarlyStop.execute(schedule, generator, "at step", step).args
    empty = torch.zeros_like(clean)
    noise = comfyui.sample_module.prepare_noise(empty, SEED)
    none = [[torch.zeros(1, 1, 1), {}]]
    out = comfyui.sample_module.sample_custom(
        patcher,
        noise,
        1.0,
        comfyui.samplers.sampler_object(sampler),
        sigmas,
        none,
        none,
        empty,
        seed=SEED,
        disable_pbar=True,
    )
    (latent,) = comfyui.nodes.PiDKitLatentFromNoisy.execute({"samples": out}, family, sigma).args
    return noise, schedule, float(schedule[step]), sigma, latent


def lq_of(comfyui, latent, family, sigma, noise="keep"):
    (positive, *_) = comfyui.nodes.PiDKitConditioning.execute(
        latent=latent,
        latent_format="auto" if family == "sdxl" else family,
        degrade_sigma=sigma,
        latent_noise=noise,
        noise_seed=0,
        positive=[[torch.zeros(1, 5, 24), {}]],
    ).args
    return positive[0][1]["lq_latent"]


def test_pid_gets_the_known_latent_with_the_known_noise(comfyui, known):
    _, clean, calls, family, _ = known
    noise, schedule, level, sigma, latent = stopped(comfyui, known)
    assert len(calls) == 7  # the last three steps are not run
    if family == "sdxl":
        # the sampler's first picture is noise * sqrt(1 + s0^2), and every step keeps the direction to the clean latent
        start = float(schedule[0])
        eps = (noise * (1 + start**2) ** 0.5 - clean) / start
        assert sigma == pytest.approx(level / (1 + level**2) ** 0.5)
        expected = (clean + level * eps) / (1 + level**2) ** 0.5
    else:
        start = float(schedule[0])
        eps = (noise * start - (1 - start) * clean) / start
        assert sigma == pytest.approx(level)
        expected = (1 - level) * clean + level * eps
    assert 0.05 < sigma < 0.9
    lq = lq_of(comfyui, latent, family, sigma)
    assert torch.allclose(lq, expected.view(lq.shape), atol=1e-4)


@pytest.mark.parametrize("known", ["flux", "sdxl"], indirect=True)
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "res_multistep", "heun", "uni_pc"])
def test_other_samplers_end_at_the_same_latent(comfyui, known, sampler):
    _, _, _, family, _ = known
    *_, euler = stopped(comfyui, known)
    *_, sigma, latent = stopped(comfyui, known, sampler)
    assert torch.allclose(
        lq_of(comfyui, latent, family, sigma),
        lq_of(comfyui, euler, family, sigma),
        atol=2e-2 if sampler == "uni_pc" else 1e-3,
    )


@pytest.mark.parametrize("known", ["flux"], indirect=True)
def test_run_to_the_end_the_latent_is_the_generators_own(comfyui, known):
    _, clean, _, family, _ = known
    *_, sigma, latent = stopped(comfyui, known, step=STEPS)
    assert sigma == 0 and set(latent) == {"samples"}
    assert torch.allclose(lq_of(comfyui, latent, family, sigma, "add"), clean, atol=1e-4)


@pytest.mark.parametrize("known", ["flux"], indirect=True)
def test_adding_noise_once_more_is_told(comfyui, known, caplog):
    _, _, _, family, _ = known
    *_, sigma, latent = stopped(comfyui, known)
    lq_of(comfyui, latent, family, sigma, "add")
    assert "already carries noise" in caplog.text
    caplog.clear()
    lq_of(comfyui, latent, family, sigma, "keep")
    assert not caplog.text


@pytest.mark.parametrize("known", ["flux"], indirect=True)
def test_a_checkpoint_of_another_family_is_refused(comfyui, known):
    *_, sigma, latent = stopped(comfyui, known)
    decoder, _ = comfyui.load("sd3")
    with pytest.raises(ValueError, match="told that the latent is flux's, but it is to be decoded as sd3's"):
        comfyui.nodes.PiDKitConditioning.execute(latent, "auto", sigma, "keep", 0, model=decoder)


def early_graph(comfy, **stop) -> dict:
    latent = put_latent(comfy, "early", torch.zeros(1, 16, 2, 2))
    graph = decode_graph(put_tiny(comfy, "bad_flux").name, latent)
    graph["schedule"] = {"class_type": "ManualSigmas", "inputs": {"sigmas": "1.0, 0.75, 0.5, 0.25, 0.0"}}
    graph["stop"] = {
        "class_type": "PiDKitEarlyStop",
        "inputs": {"sigmas": link("schedule"), "generator": "flux", "stop": "at step", "stop_step": 3} | stop,
    }
    graph["noisy"] = {
        "class_type": "PiDKitLatentFromNoisy",
        "inputs": {"latent": link("latent"), "latent_format": "flux", "degrade_sigma": link("stop", 1)},
    }
    graph["pid"]["inputs"] |= {"latent": link("noisy"), "degrade_sigma": link("stop", 1), "latent_noise": "keep"}
    return graph


def test_the_graph_decodes_the_latent_at_its_level(comfy):
    pixels = saved_pixels(comfy, comfy.queue(early_graph(comfy)))
    lq = 0.75 * LATENT_FAMILIES["flux"].normalise(torch.zeros(1, 16, 2, 2))
    noise = {"noise": comfy_noise((1, 3, 64, 64), 5), "step_noise": comfy_step_noise((1, 3, 64, 64), 5, 3)}
    expected = decode(load_network(put_tiny(comfy, "bad_flux")), lq, None, 0.25, **noise)
    # as near as two float32 runs in different processes and thread counts come; another level is 0.1 off
    assert torch.allclose(pixels.clamp(-1, 1), expected, atol=1e-4)


def test_the_node_shows_where_it_stops(comfyui, monkeypatch):
    shown = []
    module = importlib.import_module(comfyui.nodes.PiDKitEarlyStop.__module__)
    monkeypatch.setattr(module, "show_on_node", lambda node, *lines: shown.extend(lines))
    comfyui.nodes.PiDKitEarlyStop.execute(torch.linspace(1, 0, 21), "flux", "recommended", 1)
    assert shown == ["17 of 20 steps, degrade_sigma 0.150"]


def test_a_stop_outside_the_schedule(comfy):
    fails(comfy, early_graph(comfy, stop_step=9), "stop_step is 9", "4 steps: choose 1 to 4")


def test_noise_twice_only_warns(comfy):
    graph = early_graph(comfy)
    graph["pid"]["inputs"]["latent_noise"] = "add"
    comfy.queue(graph)
    assert "already carries noise of level 0.25" in comfy.log()
