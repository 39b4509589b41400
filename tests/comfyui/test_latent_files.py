"""PiD Save Latent and PiD Load Latent in ComfyUI, and with its own nodes for the same files."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from comfy_server import PromptError
from pid_core.latents.files import SavedLatent, latent_bytes, read_latent
from support.graphs import decode_graph, link, put_latent, saved_pixels
from support.tiny import save_tiny


def samples(channels=16, seed=3):
    return torch.randn(1, channels, 2, 2, generator=torch.Generator().manual_seed(seed))


def save_node(latent, **inputs):
    values = {"latent_format": "auto", "degrade_sigma": 0.0, "filename_prefix": "latents/test"} | inputs
    return {"class_type": "PiDKitSaveLatent", "inputs": {"latent": latent, **values}}


def saved_file(comfy, finished, node="keep"):
    (entry,) = finished.outputs[node]["latents"]
    return comfy.output / entry["subfolder"] / entry["filename"]


def model(comfy, family):
    return save_tiny(comfy.models / "diffusion_models" / f"latents_{family}.safetensors", family, caption=3).name


def without_family(path):
    """A checkpoint for 16 channels that does not tell whose they are."""
    save_tiny(path, "flux", caption=3)
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["pid_config"])
    save_file(load_file(path), path, {"pid_config": json.dumps(config | {"family": None})})
    return path


def test_a_saved_latent_decodes_later_as_it_would_have_now(comfy):
    latent = put_latent(comfy, "noisy_sd3", samples())
    now = decode_graph(
        model(comfy, "sd3"), latent, conditioning={"degrade_sigma": 0.3, "latent_noise": "keep", "latent_format": "sd3"}
    )
    now["keep"] = save_node(link("latent"), latent_format="sd3", degrade_sigma=0.3)
    finished = comfy.queue(now)
    path = saved_file(comfy, finished)
    with safe_open(path, "pt") as file:
        assert "prompt" in file.metadata()

    wires = {"latent_format": 1, "degrade_sigma": 2, "latent_noise": 3}
    later = decode_graph(
        model(comfy, "sd3"), "unused", conditioning={name: link("latent", output) for name, output in wires.items()}
    )
    later["latent"] = {"class_type": "PiDKitLoadLatent", "inputs": {"file": f"latents/{path.name} [output]"}}
    assert torch.equal(saved_pixels(comfy, comfy.queue(later)), saved_pixels(comfy, finished))


def test_comfyuis_nodes_and_ours_read_each_others_files(comfy):
    start = put_latent(comfy, "start", samples(4))
    graph = {
        "latent": {"class_type": "LoadLatent", "inputs": {"latent": start}},
        "keep": save_node(link("latent")),
        "core": {"class_type": "SaveLatent", "inputs": {"samples": link("latent"), "filename_prefix": "latents/core"}},
    }
    finished = comfy.queue(graph)
    ours, core = (saved_file(comfy, finished, node) for node in ("keep", "core"))
    assert read_latent(ours).family == "sdxl"  # four channels are nothing else
    assert read_latent(core).family is None
    shutil.copy(ours, comfy.input / "ours.latent")
    graph = {
        "a": {"class_type": "LoadLatent", "inputs": {"latent": "ours.latent"}},
        "b": {"class_type": "PiDKitLoadLatent", "inputs": {"file": f"latents/{core.name} [output]"}},
        "save a": {"class_type": "SaveLatent", "inputs": {"samples": link("a"), "filename_prefix": "latents/a"}},
        "save b": {"class_type": "SaveLatent", "inputs": {"samples": link("b"), "filename_prefix": "latents/b"}},
    }
    finished = comfy.queue(graph)
    for node in ("save a", "save b"):
        assert torch.equal(read_latent(saved_file(comfy, finished, node)).samples, samples(4))


def test_auto_knows_a_loaded_latents_family(comfy):
    (comfy.input / "qwen.latent").write_bytes(latent_bytes(SavedLatent(samples(), "qwenimage")))
    loaded = {"class_type": "PiDKitLoadLatent", "inputs": {"file": "qwen.latent"}}
    anonymous = without_family(comfy.models / "diffusion_models" / "latents_any.safetensors")
    explicit = decode_graph(
        anonymous.name, put_latent(comfy, "qwen_plain", samples()), conditioning={"latent_format": "qwenimage"}
    )
    graph = decode_graph(anonymous.name, "unused") | {"latent": loaded}
    graph["keep"] = save_node(link("latent"))
    finished = comfy.queue(graph)
    assert torch.equal(saved_pixels(comfy, finished), saved_pixels(comfy, comfy.queue(explicit)))
    assert read_latent(saved_file(comfy, finished)).family == "qwenimage"

    with pytest.raises(PromptError, match="the latent was saved as qwenimage, this checkpoint was made for sd3"):
        comfy.queue(decode_graph(model(comfy, "sd3"), "unused") | {"latent": loaded})


def test_files_that_cannot_be_used(comfy):
    (comfy.input / "broken.latent").write_bytes(b"x" * 30)
    graph = {"a": {"class_type": "PiDKitLoadLatent", "inputs": {"file": "broken.latent"}}, "b": save_node(link("a"))}
    with pytest.raises(PromptError, match=r"broken.latent cannot be read; it is truncated, corrupt or no latent"):
        comfy.queue(graph)
    latent = {"class_type": "LoadLatent", "inputs": {"latent": put_latent(comfy, "four", samples(4))}}
    with pytest.raises(PromptError, match="latent_format is flux, but the latent has 4 channels, sdxl: set"):
        comfy.queue({"a": latent, "b": save_node(link("a"), latent_format="flux")})


def test_a_latent_that_was_stopped_early_stays_one(comfy):
    graph = {
        "latent": {"class_type": "LoadLatent", "inputs": {"latent": put_latent(comfy, "early", samples())}},
        "noisy": {
            "class_type": "PiDKitLatentFromNoisy",
            "inputs": {"latent": link("latent"), "latent_format": "flux", "degrade_sigma": 0.25},
        },
        "keep": save_node(link("noisy")),
    }
    path = saved_file(comfy, comfy.queue(graph))
    assert (read_latent(path).family, read_latent(path).sigma) == ("flux", 0.25)
    with pytest.raises(PromptError, match="degrade_sigma is 0.5, but the latent was stopped early at 0.25"):
        comfy.queue(graph | {"keep": save_node(link("noisy"), degrade_sigma=0.5)})
    # and PiD Latent Conditioning knows that it carries noise
    graph = decode_graph(model(comfy, "flux"), "unused", conditioning={"degrade_sigma": 0.25, "latent_noise": "add"})
    graph["latent"] = {"class_type": "PiDKitLoadLatent", "inputs": {"file": f"latents/{path.name} [output]"}}
    comfy.queue(graph)
    assert "the latent was stopped early and already carries noise of level 0.25" in comfy.log()
