"""What was rounded, cropped, cut off or replaced is shown on the node, not only in the log."""

import numpy as np
import pytest
import torch

from support.graphs import link, put_latent
from support.tiny import save_tiny
from support.tiny_gemma import save_encoder


@pytest.fixture(scope="module")
def photo(comfy) -> str:
    picture = np.random.default_rng(0).integers(0, 256, (17, 25, 3), dtype=np.uint8)
    return comfy.upload(picture, "shown.png")


def shown(comfy, graph: dict, node: str) -> str:
    """The last text on a node in a run."""
    texts = []
    comfy.queue(graph, on_event=lambda kind, data: texts.append(data) if kind == "text" else None)
    return [entry["text"] for entry in texts if entry["node"] == node][-1]


def loaded(comfy, family: str, caption: int = 0, **options) -> dict:
    name = f"shown_{family}_{caption}.safetensors"
    save_tiny(comfy.models / "diffusion_models" / name, family, caption=caption, **options)
    return {"model": {"class_type": "PiDKitLoader", "inputs": {"model_name": name, "dtype": "auto"}}}


def with_latent(comfy) -> dict:
    latent = put_latent(comfy, "shown", torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(2)))
    return {"latent": {"class_type": "LoadLatent", "inputs": {"latent": latent}}}


def decode(**inputs) -> dict:
    values = {"model": link("model"), "latent": link("latent"), "degrade_sigma": 0.0, "steps": 1, "seed": 0}
    return {
        "decode": {"class_type": "PiDKitDecode", "inputs": values | inputs},
        "png": {"class_type": "PreviewImage", "inputs": {"images": link("decode")}},
    }


def test_a_picture_that_is_cropped(comfy, photo):
    graph = {
        "photo": {"class_type": "LoadImage", "inputs": {"image": photo}},
        "latent": {"class_type": "PiDKitRGBLatent", "inputs": {"image": link("photo"), "odd_size": "crop"}},
        "save": {"class_type": "SaveLatent", "inputs": {"samples": link("latent"), "filename_prefix": "shown"}},
    }
    assert shown(comfy, graph, "latent") == "25 x 17 cropped to 24 x 16 pixels"


def test_a_picture_that_is_padded_and_resized(comfy, photo):
    prepare = {"target": "factor", "family": "flux", "fit": "pad", "factor": 8.0, "image": link("photo")}
    graph = {
        "photo": {"class_type": "LoadImage", "inputs": {"image": photo}},
        "prepare": {"class_type": "PiDKitPrepareImage", "inputs": prepare},
        "png": {"class_type": "PreviewImage", "inputs": {"images": link("prepare")}},
    }
    line = shown(comfy, graph, "prepare")
    assert "25 x 17 picture, resized to 50 x 34, padded to 56 x 40" in line


def test_windows_that_are_rounded(comfy):
    windows = {"model": link("model"), "mode": "manual", "size": 72, "overlap": 24, "fuse": "pyramid"}
    graph = loaded(comfy, "flux") | with_latent(comfy)
    graph |= {
        "text": {"class_type": "TestText", "inputs": {"width": 24}},
        "windows": {"class_type": "PiDKitContextWindow", "inputs": windows},
        **decode(model=link("windows"), positive=link("text")),
    }
    line = shown(comfy, graph, "windows")
    assert "72" in line and "rounded down to 64" in line and "overlap 24 rounded up to 32" in line


def test_a_checkpoint_that_does_not_tell_its_latents(comfy):
    graph = loaded(comfy, "flux") | with_latent(comfy) | {"text": {"class_type": "TestText", "inputs": {"width": 24}}}
    graph |= decode(positive=link("text"), latent_format="flux")
    assert shown(comfy, graph, "model") == "for flux latents, 1 to 4 steps, float32"
    name = "16_channels.safetensors"
    save_tiny(comfy.models / "diffusion_models" / name, "flux", metadata=False, prefix="net.")
    graph["model"]["inputs"]["model_name"] = name
    first, second = shown(comfy, graph, "model").splitlines()
    assert first == "for 16-channel latents, 1 to 4 steps, float32;"
    assert "set family" in second


@pytest.mark.parametrize("node", ["decode", "pid"])
def test_a_text_that_the_model_does_not_read(comfy, node):
    graph = loaded(comfy, "flux", caption=3) | with_latent(comfy)
    graph |= {"text": {"class_type": "TestText", "inputs": {"width": 40}}}
    if node == "decode":
        graph |= decode(positive=link("text"))
    else:
        inputs = {"latent": link("latent"), "latent_format": "auto", "degrade_sigma": 0.0, "latent_noise": "add"}
        inputs |= {"noise_seed": 0, "model": link("model"), "positive": link("text")}
        graph["pid"] = {"class_type": "PiDKitConditioning", "inputs": inputs}
        graph["save"] = {"class_type": "SaveLatent", "inputs": {"samples": link("pid", 2), "filename_prefix": "shown"}}
    assert "the text is 40 wide, this checkpoint takes 24: its own caption is used instead" in shown(comfy, graph, node)


def test_a_text_that_is_too_long_for_pid_decode(comfy):
    encoder = save_encoder(comfy.models / "text_encoders" / "shown.safetensors").name
    clip = {"clip_name": encoder, "type": "pixeldit", "device": "default"}
    graph = loaded(comfy, "flux") | with_latent(comfy) | {"clip": {"class_type": "CLIPLoader", "inputs": clip}}
    graph |= decode(clip=link("clip"), text="clouds " * 400)
    assert "the caption is too long: its last" in shown(comfy, graph, "decode")
    graph["decode"]["inputs"]["seed"] = 1
    line = shown(comfy, graph, "decode")
    assert "caption from the cache; the caption is too long: its last" in line
