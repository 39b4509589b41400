"""A picture through PiD Prepare Image, PiD Decode and Colour Hold in the real ComfyUI, and back to its own shape."""

import json
import sys

import numpy as np
import pytest
import torch

from pid_core.images.colour import hold_colour_
from pid_core.images.framing import finish_image, plan_framing, prepare_image
from pid_core.latents.rgb import to_rgb_latent
from support.failures import fails
from support.graphs import link
from support.inside import SEED
from support.tiny import save_tiny, save_vae
from support.tiny_gemma import save_encoder


def picture(height: int = 21, width: int = 34) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def graph_for(comfy, *, fit: str = "pad", factor: float = 4.0, height: int = 21, **decode) -> dict:
    """LoadImage, Prepare, RGB Latent, Loader, Decode, SaveImage; the image is not a multiple of what rgb needs."""
    path = comfy.models / "diffusion_models" / "upscale_rgb.safetensors"
    if not path.exists():
        save_tiny(path, "rgb", caption=3)
    prepare = {"image": link("load"), "target": "factor", "family": "rgb", "fit": fit, "factor": factor}
    inputs = {"model": link("model"), "latent": link("latent"), "degrade_sigma": 0.0, "steps": 1, "seed": 5}
    return {
        "load": {"class_type": "LoadImage", "inputs": {"image": comfy.upload(picture(height))}},
        "prepare": {"class_type": "PiDKitPrepareImage", "inputs": prepare},
        "latent": {"class_type": "PiDKitRGBLatent", "inputs": {"image": link("prepare"), "odd_size": "error"}},
        "model": {"class_type": "PiDKitLoader", "inputs": {"model_name": path.name, "dtype": "auto"}},
        "decode": {"class_type": "PiDKitDecode", "inputs": inputs | {"framing": link("prepare", 1)} | decode},
        "png": {"class_type": "SaveImage", "inputs": {"images": link("decode"), "filename_prefix": "test"}},
    }


@pytest.mark.parametrize(
    ("fit", "factor", "size"), [("pad", 4.0, (84, 136)), ("crop", 4.0, (84, 136)), ("pad", 2.0, (42, 68))]
)
def test_the_whole_picture_comes_back_larger(comfy, fit, factor, size):
    images = comfy.images(comfy.queue(graph_for(comfy, fit=fit, factor=factor)), "png")
    assert [image.shape for image in images] == [(*size, 3)]


def test_finish_image_does_what_pid_decode_does_with_framing(comfy):
    graph = graph_for(comfy)
    graph["decode2"] = {"class_type": "PiDKitDecode", "inputs": dict(graph["decode"]["inputs"])}
    del graph["decode2"]["inputs"]["framing"]
    graph["finish"] = {
        "class_type": "PiDKitFinishImage",
        "inputs": {"image": link("decode2"), "framing": link("prepare", 1)},
    }
    graph["png2"] = {"class_type": "SaveImage", "inputs": {"images": link("finish"), "filename_prefix": "test"}}
    done = comfy.queue(graph)
    assert np.array_equal(comfy.images(done, "png")[0], comfy.images(done, "png2")[0])


def test_the_size_is_shown_on_the_node(comfyui, monkeypatch):
    shown = []
    module = sys.modules[comfyui.nodes.PiDKitPrepareImage.__module__]
    monkeypatch.setattr(module, "show_on_node", lambda node, *lines: shown.extend(lines))
    image = torch.rand(1, 21, 34, 3)
    prepared, framed, _ = comfyui.nodes.PiDKitPrepareImage.execute(image, "factor", "flux", "pad", 4.0).args
    assert prepared.shape == (1, 24, 40, 3)
    assert shown == ["34 x 21 picture, padded to 40 x 24, PiD makes it 160 x 96, finished: 136 x 84"]
    assert repr(framed.framing) == repr(plan_framing(21, 34, "flux", target="factor"))
    with torch.inference_mode():
        finished = comfyui.nodes.PiDKitFinishImage.execute(torch.rand(1, 96, 160, 3), framed).args[0]
    assert finished.shape == (1, 84, 136, 3)


def test_colours_are_held_by_the_prepared_picture(comfyui):
    patcher, _ = comfyui.load("rgb")
    image = torch.rand(2, 21, 34, 3)
    framing = plan_framing(21, 34, "rgb", target="factor")
    prepared = prepare_image(image, framing)
    options = {"model": patcher, "latent": {"samples": to_rgb_latent(prepared)}, "degrade_sigma": 0.0, "steps": 1}
    execute = comfyui.nodes.PiDKitDecode.execute
    with torch.inference_mode():
        prepared_node, framed, packed = comfyui.nodes.PiDKitPrepareImage.execute(
            image, "factor", "rgb", "pad", 4.0
        ).args
        plain = execute(**options, seed=SEED).args[0]
        held = execute(**options, seed=SEED, colour_hold="low_frequencies", fidelity=1.0, framing=framed).args[0]
        own = execute(**options, seed=SEED, colour_hold="low_frequencies", fidelity=1.0).args[0]
        given = execute(
            **options, seed=SEED, colour_hold="low_frequencies", fidelity=1.0, reference=prepared.flip(0)
        ).args[0]
    assert torch.equal(prepared_node, prepared)
    assert torch.equal(packed["samples"], options["latent"]["samples"])
    zeros = torch.zeros_like(plain).movedim(-1, 1).contiguous()
    enlarged = hold_colour_(zeros, prepared.movedim(-1, 1), "low_frequencies", 1.0).clamp(0, 1).movedim(1, -1)
    assert torch.allclose(held, finish_image(enlarged, framing, image), atol=1e-5)
    assert torch.allclose(own, enlarged, atol=1e-5)  # an rgb latent is its own reference
    assert torch.allclose(given, enlarged.flip(0), atol=1e-5)
    assert not torch.allclose(plain, enlarged, atol=0.1)


def test_hold_works_before_values_are_cut_off(comfyui, monkeypatch):
    """An image far out of range comes back; the node alone, which sees it clamped, cannot do that."""
    patcher, _ = comfyui.load("rgb")
    module = sys.modules[comfyui.nodes.PiDKitDecode.__module__]
    image = torch.rand(1, 16, 16, 3)
    pixels = torch.nn.functional.interpolate(image.movedim(-1, 1) * 2 - 1, scale_factor=4, mode="bicubic")
    monkeypatch.setattr(module, "sample", lambda *args: pixels + 3)
    with torch.inference_mode():
        out = comfyui.nodes.PiDKitDecode.execute(
            patcher, {"samples": to_rgb_latent(image)}, 0.0, 1, 0, colour_hold="mean_deviation"
        ).args[0]
    assert (out - (pixels.clamp(-1, 1).movedim(1, -1) + 1) / 2).abs().max() < 0.1


def test_the_colour_hold_node(comfyui):
    image, reference = torch.rand(2, 32, 32, 4), torch.rand(1, 8, 8, 3)
    before = image.clone()
    with torch.inference_mode():
        out = comfyui.nodes.PiDKitColourHold.execute(image, reference, "low_frequencies", 0.3).args[0]
        same = comfyui.nodes.PiDKitColourHold.execute(image, reference, "none", 0.0).args[0]
    assert torch.equal(image, before) and torch.equal(same, image)
    expected = hold_colour_(image[..., :3].movedim(-1, 1).contiguous(), reference.movedim(-1, 1), fidelity=0.3)
    assert torch.allclose(out[..., :3], expected.clamp(0, 1).movedim(1, -1), atol=1e-6)
    assert torch.equal(out[..., 3], image[..., 3])


def test_vae_encodes_crop_is_found_again(comfy):
    """An image that VAE Encode crops, here by the exact pixel VAE through RGB Latent, is its own reference."""
    graph = graph_for(comfy, colour_hold="low_frequencies", fidelity=1.0, reference=link("load"))
    del graph["prepare"], graph["decode"]["inputs"]["framing"]
    graph["load"]["inputs"]["image"] = comfy.upload(picture(64, 67))
    graph["latent"]["inputs"] = {"image": link("load"), "odd_size": "crop"}
    assert comfy.images(comfy.queue(graph), "png")[0].shape == (256, 264, 3)


def test_bad_input_is_one_line_before_the_decode(comfy):
    other = graph_for(comfy, colour_hold="mean_deviation", reference=link("other"))
    other["other"] = {"class_type": "LoadImage", "inputs": {"image": comfy.upload(picture(40, 90))}}
    fails(comfy, other, "90 x 40", "136 x 88", "shapes differ")
    wrong = graph_for(comfy)
    wrong["latent"]["inputs"] = {"image": link("load"), "odd_size": "crop"}
    fails(comfy, wrong, "136 x 80", "136 x 88", "PiD Prepare Image")
    tiny = graph_for(comfy, height=1, fit="crop", factor=4.0)
    fails(comfy, tiny, "34 x 1", "pad")
    huge = graph_for(comfy, factor=16.0)
    huge["load"]["inputs"]["image"] = comfy.upload(picture(16, 1100))
    fails(comfy, huge, "at most 16384")


def test_a_hold_without_a_reference(comfyui):
    patcher, _ = comfyui.load("flux")
    with pytest.raises(ValueError, match="reference: connect VAE Decode"):
        comfyui.nodes.PiDKitDecode.execute(
            patcher, {"samples": torch.zeros(1, 16, 1, 1)}, 0.0, 1, 0, colour_hold="mean_deviation"
        )


def test_the_example_workflow_runs_on_small_stand_ins(comfy, comfyui, root):
    graph = json.loads(
        (root / "example_workflows" / "api" / "pid_with_flux_upscale_picture.json").read_text(encoding="utf-8")
    )
    assert len(graph) < 12  # what ComfyUI's own nodes need
    inputs = {entry["class_type"]: entry["inputs"] for entry in graph.values()}
    models = comfy.models
    inputs["LoadImage"]["image"] = comfy.upload(picture(37, 51))
    inputs["PiDKitPrepareImage"] |= {"target": "factor", "factor": 4.0}
    inputs["PiDKitLoader"]["model_name"] = save_tiny(models / "diffusion_models" / "upscale_flux.safetensors").name
    inputs["VAELoader"]["vae_name"] = save_vae(models / "vae" / "upscale_vae.safetensors").name
    inputs["CLIPLoader"]["clip_name"] = save_encoder(models / "text_encoders" / "upscale_gemma.safetensors").name
    graph = {key: node for key, node in graph.items() if node["class_type"] != "PiDKitDownload"}
    shown = []
    done = comfy.queue(graph, on_event=lambda kind, data: shown.append(data) if kind == "text" else None)
    (save,) = (key for key, node in graph.items() if node["class_type"] == "SaveImage")
    (image,) = comfy.images(done, save)
    assert image.shape == (4 * 37, 4 * 51, 3) and image.std() > 5
    assert any("padded to 56 x 40, PiD makes it 224 x 160, finished: 204 x 148" in str(data) for data in shown)
