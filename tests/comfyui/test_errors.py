"""What ComfyUI makes of our errors: a bare type, one line, and as much as can be found before the run."""

import builtins
import importlib
import pkgutil

import numpy as np
import pytest
import torch

from support.failures import failure, refused
from support.graphs import decode_graph, link, pid_decode_graph, put_latent
from support.tiny import save_tiny
from support.tiny_gemma import save_encoder

NANO = "pid_nano (bundled)"
FETCHED = "pid_1.5_flux1_1024_to_4096_4step_bf16.safetensors"


def raised(comfy, graph: dict, kind: str = "ValueError") -> str:
    """The line of a run that failed; the type stands before it in ComfyUI's report, without a module."""
    error = failure(comfy, graph)
    assert error.details["exception_type"] == kind
    line = error.details["exception_message"].strip()
    assert line and "\n" not in line
    return line


def checkpoint(comfy, name: str, family: str = "flux", **options) -> str:
    path = comfy.models / "diffusion_models" / f"errors_{name}.safetensors"
    if not path.exists():
        save_tiny(path, family, **options)
    return path.name


def loader(**inputs) -> dict:
    values = {"model_name": NANO, "dtype": "auto"} | inputs
    return {"class_type": "PiDKitLoader", "inputs": values}


def save(source: str) -> dict:
    return {"class_type": "SaveLatent", "inputs": {"samples": link(source), "filename_prefix": "errors"}}


def test_every_exception_of_ours_prints_bare(comfyui):
    execution = importlib.import_module("execution")
    own = {}
    for part in ("pid_core", "nodes"):
        top = importlib.import_module(f"{comfyui.pack}.{part}")
        for found in pkgutil.walk_packages(top.__path__, f"{top.__name__}."):
            if found.name.endswith("__main__"):
                continue
            for name, value in vars(importlib.import_module(found.name)).items():
                is_error = isinstance(value, type) and issubclass(value, BaseException)
                is_python = getattr(builtins, name, None) is value
                if is_error and not is_python and value.__module__.partition(".")[0] in (comfyui.pack, "builtins"):
                    own[name] = execution.full_type_name(value)
    assert {"FetchError", "LicenceError", "NonFiniteError", "NoPlanError"} <= own.keys()
    assert own == {name: name for name in own}


def test_a_licence_that_is_asked_for_in_a_run(comfy):
    """The switch is wired, so it is not known before."""
    graph = pid_decode_graph(NANO, put_latent(comfy, "errors_nano", torch.zeros(1, 12, 4, 4)))
    graph["no"] = {"class_type": "PrimitiveBoolean", "inputs": {"value": False}}
    graph["model"] = loader(model_name=f"fetch: {FETCHED}", accept_licence=link("no"))
    line = raised(comfy, graph, "LicenceError")
    assert line.startswith(f"missing: {FETCHED}") and line.endswith(
        "switch accept_licence on in this node and run again"
    )


def test_a_download_that_fails(comfy):
    graph = {
        "get": {"class_type": "PiDKitDownload", "inputs": {"file": "ae.safetensors", "accept_licence": True}},
    }
    assert raised(comfy, graph, "FetchError").startswith("ae.safetensors cannot be fetched")


# ------------------------------------------------------------------------------------------------ before a run


def test_a_licence_that_is_not_accepted(comfy):
    graph = pid_decode_graph(NANO, put_latent(comfy, "errors_nano", torch.zeros(1, 12, 4, 4)))
    graph["model"] = loader(model_name=f"fetch: {FETCHED}")
    lines = refused(comfy, graph, "model")
    assert set(lines) == {"model_name"}  # accept_licence is not sent
    graph["model"]["inputs"]["accept_licence"] = False
    lines = refused(comfy, graph, "model")
    assert set(lines) == {"model_name", "accept_licence"} and len(set(lines.values())) == 1
    assert "switch accept_licence on in this node" in lines["model_name"]

    graph = {"get": {"class_type": "PiDKitDownload", "inputs": {"file": FETCHED, "accept_licence": False}}}
    assert "switch accept_licence on in this node" in refused(comfy, graph, "get")["file"]
    graph["get"]["inputs"]["file"] = "x"
    assert refused(comfy, graph, "get")["file"].startswith("file is 'x', which is not in its list")


def test_a_file_to_fetch_that_is_not_in_the_list(comfyui):
    """As a workflow of a newer version may name it."""
    name = "fetch: later.safetensors"
    words = f"model_name is '{name}', which is not in its list: choose another, or press R to refresh the list"
    assert comfyui.nodes.PiDKitLoader.validate_inputs(model_name=name) == words


def test_a_file_that_is_not_there(comfy):
    graph = pid_decode_graph("gone.safetensors", put_latent(comfy, "errors_nano", torch.zeros(1, 12, 4, 4)))
    line = "no such file: gone.safetensors; put it into models/diffusion_models and press R, or choose another"
    assert refused(comfy, graph, "model") == {"model_name": f"{line} model_name"}


def test_a_text_without_an_encoder(comfy):
    graph = pid_decode_graph(NANO, put_latent(comfy, "errors_nano", torch.zeros(1, 12, 4, 4)), text="a cat")
    line = "text is set, but clip is not connected: connect Load CLIP (type pixeldit) to clip, or empty text"
    assert refused(comfy, graph, "decode") == {"text": line}
    graph["text"] = {"class_type": "TestText", "inputs": {"width": 24}}
    graph["decode"]["inputs"]["positive"] = link("text")
    comfy.queue(graph)


def test_a_caption_without_an_encoder(comfy):
    caption = {"class_type": "PiDKitCaption", "inputs": {"text": "never seen", "cache": True}}
    keep = {"caption": link("caption"), "filename_prefix": "captions/errors", "dtype": "float32"}
    graph = {"caption": caption, "save": {"class_type": "PiDKitSaveCaption", "inputs": keep}}
    assert refused(comfy, graph, "caption")["text"].startswith("this text is not in the cache and clip is not")
    caption["inputs"]["cache"] = False
    assert refused(comfy, graph, "caption")["cache"].endswith("or turn cache on")


def test_neither_text_nor_model(comfy):
    graph = decode_graph(NANO, put_latent(comfy, "errors_nano", torch.zeros(1, 12, 4, 4)))
    del graph["pid"]["inputs"]["model"]
    assert refused(comfy, graph, "pid")["latent"].startswith("neither positive nor model is connected")


SETTINGS = {
    "steps above four": ("PiDKitSigmas", {"steps": 5}, "steps", "4-step checkpoints know 1 to 4"),
    "steps below one": ("PiDKitSigmas", {"steps": -1}, "steps", "steps is -1, but must be from 0 to 1000"),
    "overlap": ("PiDKitContextWindow", {"overlap": 256, "size": 256}, "overlap", "lower overlap or raise size"),
    "overlap below zero": ("PiDKitContextWindow", {"overlap": -8}, "overlap", "must be from 0 to 8192"),
    "mode": ("PiDKitContextWindow", {"mode": "all"}, "mode", "mode is 'all', which is not in its list"),
    "fuse": ("PiDKitContextWindow", {"fuse": "none"}, "fuse", "not in"),
    "sigmas of a sweep": ("PiDKitSigmaSweep", {"sigmas": "0.1, x"}, "sigmas", "must be numbers with commas between"),
    "seeds of a sweep": ("PiDKitSigmaSweep", {"seeds": "-1"}, "seeds", "must be whole numbers from 0"),
    "too many": ("PiDKitSigmaSweep", {"seeds": ",".join(map(str, range(33)))}, "seeds", "at most 64 are possible"),
    "picture of a sweep": ("PiDKitSigmaSweep", {"picture": 0}, "picture", "picture"),
    "paint of the tuner": ("PiDKitSigmaTuner", {"painted": "0a=2x2:3"}, "painted", "painted is damaged, it holds"),
    "sigmas of the tuner": ("PiDKitSigmaTuner", {"sigmas": "2"}, "sigmas", "must be between 0 and 1 each, got 2"),
}
USUAL = {
    "PiDKitSigmas": {},
    "PiDKitContextWindow": {"mode": "manual", "size": 512, "overlap": 64, "fuse": "pyramid", "model": link("model")},
    "PiDKitSigmaSweep": {
        "picture": 1,
        "sigmas": "0, 0.1",
        "seeds": "0",
        "steps": 1,
        "model": link("model"),
        "latent": link("latent"),
    },
    "PiDKitSigmaTuner": {"default_sigma": 0.0, "sigmas": "", "pictures": "", "image": link("image")},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_cannot_be(comfy, name):
    kind, inputs, field, words = SETTINGS[name]
    graph = pid_decode_graph(NANO, put_latent(comfy, "errors_nano", torch.zeros(1, 12, 4, 4)))
    graph["image"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0},
    }
    graph["node"] = {"class_type": kind, "inputs": USUAL[kind] | inputs}
    if kind == "PiDKitContextWindow":
        graph["decode"]["inputs"]["model"] = link("node")
    elif kind == "PiDKitSigmas":
        graph |= sampler_custom(sigmas=link("node"))
    assert words in refused(comfy, graph, "node")[field]


def sampler_custom(**inputs) -> dict:
    """SamplerCustom on PiD Conditioning's canvas."""
    pid = {"latent": link("latent"), "latent_format": "auto", "degrade_sigma": 0.0, "latent_noise": "add"}
    values = {"model": link("model"), "add_noise": True, "noise_seed": 0, "cfg": 1.0, "sampler": link("lcm")}
    values |= {"positive": link("pid"), "negative": link("pid", 1), "latent_image": link("pid", 2)} | inputs
    return {
        "pid": {"class_type": "PiDKitConditioning", "inputs": pid | {"noise_seed": 0, "model": link("model")}},
        "lcm": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "lcm"}},
        "custom": {"class_type": "SamplerCustom", "inputs": values},
        "save": save("custom"),
    }


# ------------------------------------------------------------------------------------------- the commonest mistakes

LATENTS = {"flux": 16, "sdxl": 4, "flux2": 128, "rgb": 12, "unknown": 24, "pixels": 3}
SIXTEEN = "flux, sd3 or qwenimage"
NANO_TAKES = "this checkpoint takes 12, pictures from PiD RGB Latent"
PUT_BEFORE = "put PiD RGB Latent before it, with the picture"
WRONG = {
    ("flux", "rgb"): f"the latent has 16 channels, {SIXTEEN}; {NANO_TAKES}: choose a PiD file for {SIXTEEN} in PiD "
    f"Loader, or {PUT_BEFORE}",
    ("sdxl", "rgb"): f"the latent has 4 channels, sdxl; {NANO_TAKES}: choose a PiD file for sdxl in PiD Loader, or "
    f"{PUT_BEFORE}",
    ("pixels", "rgb"): f"the latent has 3 channels, which is pixels; {NANO_TAKES}: {PUT_BEFORE}",
    ("rgb", "flux"): "the latent has 12 channels, a picture from PiD RGB Latent; this checkpoint takes 16, "
    f"{SIXTEEN}: choose pid_nano (bundled) in PiD Loader, or make the latent with VAE Encode",
    ("sdxl", "flux"): f"the latent has 4 channels, sdxl; this checkpoint takes 16, {SIXTEEN}: connect a latent that "
    f"the VAE of {SIXTEEN} made, or choose a PiD file for sdxl in PiD Loader",
    ("unknown", "flux"): "the latent has 24 channels, of no family that PiD knows; this checkpoint takes 16, "
    f"{SIXTEEN}: connect a latent that the VAE of {SIXTEEN} made",
}


def mistakes() -> list[tuple[str, str, str]]:
    """In PiD Decode, in our conditioning, and with ComfyUI's PiDConditioning, which leaves it to the model."""
    known = [(latent, family) for latent, family in WRONG if latent in ("flux", "sdxl")]
    return [(*pair, node) for node in ("decode", "pid") for pair in WRONG] + [(*pair, "core") for pair in known]


@pytest.mark.parametrize(("latent", "family", "node"), mistakes())
def test_a_latent_of_another_family(comfy, latent, family, node):
    model = NANO if family == "rgb" else checkpoint(comfy, family, family, caption=3)
    file = put_latent(comfy, f"errors_{LATENTS[latent]}", torch.ones(1, LATENTS[latent], 4, 4))
    graph = pid_decode_graph(model, file) if node == "decode" else decode_graph(model, file)
    if node == "core":
        graph |= core_conditioning(latent)
    line = raised(comfy, graph)
    assert line.removeprefix("in the conditioning ") == WRONG[latent, family]


def core_conditioning(latent: str) -> dict:
    core = {"positive": link("text"), "latent": link("latent"), "degrade_sigma": 0.0, "latent_format": latent}
    return {
        "text": {"class_type": "TestText", "inputs": {"width": 24}},
        "pid": {"class_type": "PiDConditioning", "inputs": core},
        "negative": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": link("pid")}},
        "canvas": {
            "class_type": "EmptyChromaRadianceLatentImage",
            "inputs": {"width": 128, "height": 128, "batch_size": 1},
        },
    } | {"sampler": _sampler("negative", "canvas")}


def _sampler(negative: str, canvas: str, **inputs) -> dict:
    values = {"model": link("model"), "positive": link("pid"), "negative": link(negative), "latent_image": link(canvas)}
    values |= {"seed": 5, "steps": 4, "cfg": 1.0, "sampler_name": "lcm", "scheduler": "simple", "denoise": 1.0}
    return {"class_type": "KSampler", "inputs": values | inputs}


def test_our_model_with_comfyuis_conditioning(comfy):
    file = put_latent(comfy, "errors_16", torch.zeros(1, 16, 4, 4))
    comfy.queue(decode_graph(checkpoint(comfy, "flux", "flux", caption=3), file) | core_conditioning("flux"))


def test_a_latent_format_that_is_not_the_latents(comfy):
    graph = pid_decode_graph(
        checkpoint(comfy, "flux", caption=3),
        put_latent(comfy, "errors_16", torch.zeros(1, 16, 4, 4)),
        latent_format="sd3",
    )
    line = (
        "latent_format is sd3, but this checkpoint was made for flux: set latent_format to auto, or choose a PiD file "
    )
    assert raised(comfy, graph) == f"{line}for sd3 in PiD Loader"


def test_a_checkpoint_that_does_not_tell_whose_latents(comfy):
    """As ComfyUI's own model never does."""
    name = checkpoint(comfy, "untold_16", "flux", caption=3, metadata=False)
    file = put_latent(comfy, "errors_16", torch.zeros(1, 16, 4, 4))
    line = raised(comfy, pid_decode_graph(name, file))
    assert line == (
        "a latent with 16 channels can be of flux, sd3 or qwenimage: set latent_format to the one whose VAE made it"
    )
    comfy.queue(pid_decode_graph(name, file, latent_format="flux"))


@pytest.mark.parametrize("width", [64, 512])
def test_an_empty_latent_image_as_the_canvas(comfy, width):
    graph = decode_graph(checkpoint(comfy, "flux", caption=3), put_latent(comfy, "errors_16", torch.zeros(1, 16, 4, 4)))
    graph["empty"] = {"class_type": "EmptyLatentImage", "inputs": {"width": width, "height": width, "batch_size": 1}}
    graph["sampler"]["inputs"]["latent_image"] = link("empty")
    line = raised(comfy, graph)
    assert "the latent decodes to 128 x 128: use the canvas that " in line


def test_steps_and_cfg_that_were_not_trained(comfy):
    graph = decode_graph(
        checkpoint(comfy, "flux", caption=3),
        put_latent(comfy, "errors_16", torch.zeros(1, 16, 4, 4)),
        sampler={"steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "karras"},
    )
    done = comfy.queue(graph)
    assert comfy.images(done, "png")[0].shape == (128, 128, 3)


def test_a_vae_that_is_not_pixel_space_on_pids_pixels(comfy):
    """ComfyUI's own node raises it; js/node_errors.js says more on the node."""
    graph = decode_graph(checkpoint(comfy, "flux", caption=3), put_latent(comfy, "errors_16", torch.zeros(1, 16, 4, 4)))
    graph["save"]["inputs"]["samples"] = link("sampler")
    graph["four"] = {"class_type": "LoadLatent", "inputs": {"latent": put_latent(comfy, "f", torch.zeros(1, 4, 8, 8))}}
    graph["image"]["inputs"]["samples"] = link("four")
    assert raised(comfy, graph).endswith("a latent is decoded by the VAE that made it, not by Pixel-Space VAE")


def test_a_text_encoder_of_another_type(comfy):
    encoder = save_encoder(comfy.models / "text_encoders" / "errors.safetensors").name
    graph = pid_decode_graph(
        checkpoint(comfy, "flux"), put_latent(comfy, "errors_16", torch.zeros(1, 16, 4, 4)), text="a cat"
    )
    graph["clip"] = {
        "class_type": "CLIPLoader",
        "inputs": {"clip_name": encoder, "type": "lumina2", "device": "default"},
    }
    graph["decode"]["inputs"]["clip"] = link("clip")
    assert "use Load CLIP with type pixeldit" in raised(comfy, graph)


def test_a_picture_is_no_mistake(comfy):
    """The way that the advice for the bundled model names."""
    picture = comfy.upload(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    graph = pid_decode_graph(NANO, "")
    graph["load"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    graph["latent"] = {"class_type": "PiDKitRGBLatent", "inputs": {"image": link("load"), "odd_size": "error"}}
    done = comfy.queue(graph)
    assert comfy.images(done, "png")[0].shape == (64, 64, 3)
