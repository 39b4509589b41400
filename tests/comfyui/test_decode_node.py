"""PiD Decode draws what the separate nodes draw, and what pid_core.sampling.decode draws."""

import importlib
import sys
import urllib.request

import numpy as np
import pytest
import torch

from comfy_server import PromptError
from pid_core import LATENT_FAMILIES
from pid_core import decode as core_decode
from pid_core.latents.lq_input import prepare_lq
from pid_core.latents.rgb import to_image
from pid_core.sampling.comfy_noise import comfy_noise, comfy_step_noise
from support.failures import fails
from support.graphs import decode_graph, link, pid_decode_graph, put_latent
from support.inside import SEED, by_core
from support.tiny import put_tiny, save_tiny

FAMILIES = {"flux": (16, 2, 3), "flux2": (128, 1, 2), "sdxl": (4, 3, 2), "rgb": (12, 5, 4)}


def model_for(comfy, family: str) -> str:
    return put_tiny(comfy, f"decode_{family}", family).name


def latent_for(comfy, family: str, batch: int = 1) -> str:
    latent = torch.randn((batch, *FAMILIES[family]), generator=torch.Generator().manual_seed(1))
    return put_latent(comfy, f"decode_{family}_{batch}", latent)


@pytest.mark.parametrize(
    ("family", "steps", "sigma"), [("flux", 4, 0.0), ("sdxl", 3, 0.4), ("flux2", 2, 0.2), ("rgb", 1, 0.7)]
)
def test_the_same_pixels_as_separate_nodes(comfy, family, steps, sigma):
    model, latent = model_for(comfy, family), latent_for(comfy, family, batch=2)
    one = pid_decode_graph(model, latent, steps=steps, degrade_sigma=sigma)
    many = decode_graph(model, latent, conditioning={"degrade_sigma": sigma, "noise_seed": 5}, sampler={"steps": steps})
    ours, theirs = (comfy.images(comfy.queue(graph), "png") for graph in (one, many))
    assert len(ours) == len(theirs) == 2
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a, b) and a.std() > 5


def test_windows_are_those_of_context_window(comfy):
    model, latent = model_for(comfy, "flux"), put_latent(comfy, "decode_wide", torch.randn(1, 16, 3, 8))
    one = pid_decode_graph(model, latent, window_mode="manual", window_size=128, window_overlap=32)
    many = decode_graph(model, latent, conditioning={"noise_seed": 5})
    settings = {"mode": "manual", "size": 128, "overlap": 32, "fuse": "pyramid"}
    many["windows"] = {"class_type": "PiDKitContextWindow", "inputs": settings | {"model": link("model")}}
    many["sampler"]["inputs"]["model"] = link("windows")
    before = pid_decode_graph(model, latent)
    before["windows"] = many["windows"]
    before["decode"]["inputs"]["model"] = link("windows")
    whole = pid_decode_graph(model, latent, window_mode="off")
    ours, theirs, taken, off = (comfy.images(comfy.queue(g), "png")[0] for g in (one, many, before, whole))
    assert np.array_equal(ours, theirs) and np.array_equal(taken, theirs)
    assert not np.array_equal(ours, off)


def test_windows_are_shown_on_the_node(comfyui, monkeypatch):
    patcher, _ = comfyui.load()
    shown = []
    monkeypatch.setattr(
        sys.modules[comfyui.nodes.PiDKitDecode.__module__], "show_on_node", lambda node, *lines: shown.append(lines)
    )
    comfyui.decode(patcher, torch.randn(1, 16, 2, 4), window_mode="manual", window_size=64, window_overlap=0)
    assert shown[0][0] == "flux latent, 128 x 64 pixels"
    assert shown[-1][0].startswith("128 x 64 in 2 windows of 64 x 64, less than 0.1 GB")
    assert shown[-1][1].startswith("details: flux latent, 4 steps, 2 across, 1 down")


def test_kept_noise_and_a_format_by_hand(comfy):
    model, latent = model_for(comfy, "flux"), latent_for(comfy, "flux")
    options = {"degrade_sigma": 0.4, "latent_noise": "keep", "latent_format": "flux"}
    ours = comfy.images(comfy.queue(pid_decode_graph(model, latent, **options)), "png")[0]
    theirs = comfy.images(comfy.queue(decode_graph(model, latent, conditioning=options)), "png")[0]
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("changes", "best"), [({}, 4), ({"steps": 2}, 2)])
def test_0_steps_are_as_many_as_the_checkpoint_is_best_at(comfyui, changes, best):
    patcher, _ = comfyui.load(changes=changes)
    latent = torch.randn(1, 16, 2, 1)
    asked = comfyui.decode(patcher, latent, steps=best)
    assert torch.equal(comfyui.decode(patcher, latent, steps=0), asked)
    assert not torch.equal(comfyui.decode(patcher, latent, steps=best - 1), asked)
    sweep = comfyui.nodes.PiDKitSigmaSweep
    with torch.inference_mode():
        (tried, _) = sweep.execute([patcher], [{"samples": latent}], [1], ["0"], [str(SEED)], [0]).args
    assert torch.equal(tried, asked)
    assert len(comfyui.nodes.PiDKitSigmas.execute(0, patcher).args[0]) == best + 1


def test_0_steps_for_comfyuis_own_model_are_4(comfyui, core_pid):
    assert len(comfyui.nodes.PiDKitSigmas.execute(0, core_pid()).args[0]) == 5
    assert len(comfyui.nodes.PiDKitSigmas.execute(0).args[0]) == 5


def test_a_sigma_per_image_equals_each_alone(comfyui):
    patcher, net = comfyui.load()
    latent, sigmas = torch.randn(3, 16, 2, 1), [0.0, 0.35, 0.7]
    images = comfyui.decode(patcher, latent, sigma_list=sigmas)
    for i, sigma in enumerate(sigmas):
        alone = latent[i : i + 1]
        assert torch.equal(images[i : i + 1], comfyui.decode(patcher, alone, degrade_sigma=sigma))
        lq = prepare_lq(alone, "flux", sigma, seed=SEED)
        assert torch.allclose(images[i : i + 1], to_image(by_core(net, lq.latent, lq.sigma)), atol=2e-5)


def test_a_noisy_pictures_latent_is_scaled_and_nothing_is_added(comfyui):
    patcher, net = comfyui.load()
    latent = torch.randn(2, 16, 2, 1)
    images = comfyui.decode(patcher, latent, degrade_sigma=0.35, latent_noise="scale")
    lq = prepare_lq(latent, "flux")
    assert torch.allclose(images, to_image(by_core(net, 0.65 * lq.latent, torch.full((2,), 0.35))), atol=2e-5)


@pytest.mark.parametrize("value", [0.35, [0.35], torch.tensor([0.35])])
def test_one_sigma_in_any_form(comfyui, value):
    patcher, _ = comfyui.load()
    latent = torch.randn(2, 16, 1, 1)
    assert torch.equal(
        comfyui.decode(patcher, latent, sigma_list=value), comfyui.decode(patcher, latent, degrade_sigma=0.35)
    )


def test_progress_is_that_of_this_node(comfy):
    seen = []
    graph = pid_decode_graph(model_for(comfy, "flux"), latent_for(comfy, "flux"), seed=91)
    comfy.queue(graph, on_event=lambda kind, data: seen.append(data) if kind == "progress" else None)
    assert {d["node"] for d in seen} == {"decode"}
    fractions = [d["value"] / d["max"] for d in seen]
    assert fractions[-1] == 1 and fractions == sorted(fractions)


def test_interrupt_ends_the_run_and_the_next_one_works(comfy):
    model, latent = model_for(comfy, "flux"), latent_for(comfy, "flux", batch=4)
    steps = []

    def stop(kind, data):
        if kind == "progress" and not steps:
            steps.append(data["value"])
            request = urllib.request.Request(f"http://{comfy.address}/interrupt", method="POST")
            urllib.request.urlopen(request, timeout=20).close()

    # enough pictures that the run is still going when the request arrives
    graph = pid_decode_graph(model, latent, seed=77)
    graph["many"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": link("latent"), "amount": 16}}
    graph["decode"]["inputs"]["latent"] = link("many")
    with pytest.raises(PromptError, match="interrupted"):
        comfy.queue(graph, on_event=stop)
    assert comfy.images(comfy.queue(pid_decode_graph(model, latent, seed=77)), "png")


def test_previews_show_the_picture_so_far(comfyui, monkeypatch):
    patcher, _ = comfyui.load()
    cli, preview = importlib.import_module("comfy.cli_args"), importlib.import_module("latent_preview")
    monkeypatch.setattr(cli.args, "preview_method", preview.LatentPreviewMethod.Auto)
    shown = []
    utils = importlib.import_module("comfy.utils")
    monkeypatch.setattr(
        utils, "PROGRESS_BAR_HOOK", lambda value, total, image, **_: shown.append((value, total, image))
    )
    comfyui.decode(patcher, torch.randn(1, 16, 2, 3))
    value, total, last = [entry for entry in shown if entry[2] is not None][-1]
    assert (value, total) == (4, 4)
    kind, image, _ = last
    assert kind == "JPEG" and image.size == (96, 64)


def test_with_comfyuis_own_pid_model(comfyui, core_pid):
    patcher = core_pid("flux", "v1")
    _, net = comfyui.load("flux", "v1")
    text, latent = torch.randn(1, 12, 24), torch.randn(1, 16, 1, 2)
    image = comfyui.decode(patcher, latent, latent_format="flux", positive=[[text, {}]])
    shape = (1, 3, 32, 64)
    expected = core_decode(
        net,
        LATENT_FAMILIES["flux"].normalise(latent),
        text,
        noise=0.999 * comfy_noise(shape, SEED),  # it scales the first noise
        step_noise=comfy_step_noise(shape, SEED, 3),
    )
    assert torch.allclose(image, to_image(expected), atol=2e-3)


def test_nan_of_comfyuis_own_model_is_an_error_and_no_black_image(comfyui, core_pid):
    patcher = core_pid("flux", "v1")
    patcher.model.diffusion_model.final_layer.linear.bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN.*PiD Loader"):
        comfyui.decode(patcher, torch.randn(1, 16, 1, 1), latent_format="flux", positive=[[torch.randn(1, 12, 24), {}]])


@pytest.mark.parametrize("window_mode", ["off", "auto"])
@pytest.mark.parametrize(
    ("extras", "words"),
    [
        ({"start_percent": 0.0, "end_percent": 0.5}, "at step . of 4 no positive conditioning acts"),
        ({"strength": 0.0}, "at step 1 of 4 no positive conditioning acts"),
        ({"area": (4, 4, 0, 0)}, "has an area"),
    ],
)
def test_what_would_turn_a_picture_of_comfyuis_own_model_grey(comfyui, core_pid, window_mode, extras, words):
    patcher, latent = core_pid("flux", "v1"), torch.randn(1, 16, 1, 1)
    text = [[torch.randn(1, 12, 24), extras]]
    with pytest.raises(ValueError, match=words):
        comfyui.decode(patcher, latent, latent_format="flux", positive=text, window_mode=window_mode)
    assert not patcher.wrappers.get("outer_sample")  # the user's own model stays as it was


def test_a_text_without_its_encoder(comfy):
    graph = pid_decode_graph(model_for(comfy, "flux"), latent_for(comfy, "flux"), text="a red house")
    fails(comfy, graph, "text", "clip")


def test_a_model_without_a_caption(comfy):
    save_tiny(comfy.models / "diffusion_models" / "decode_mute.safetensors", "flux")
    fails(comfy, pid_decode_graph("decode_mute.safetensors", latent_for(comfy, "flux")), "caption", "positive")


def test_a_sigma_list_of_the_wrong_length(comfyui):
    patcher, _ = comfyui.load()
    with pytest.raises(ValueError, match="3 values, latent holds 2 images"):
        comfyui.decode(patcher, torch.zeros(2, 16, 1, 1), sigma_list=[0.1, 0.2, 0.3])
