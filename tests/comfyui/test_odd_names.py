"""Names that are not UTF-8, and other text that does not print: one line, and the server answers the next prompt."""

import os

import pytest
import torch

from comfy_server import PromptError
from pid_core.captions.text import Caption, write_caption
from pid_core.latents.files import SavedLatent, latent_bytes
from support.graphs import decode_graph, link, pid_decode_graph, put_latent
from support.tiny import save_tiny, tiny_state_dict

LATIN = os.fsdecode(b"caf\xe9")
HALF = "\ud800"
NANO = "pid_nano (bundled)"


def lives(comfy):
    """The server runs a prompt."""
    comfy.queue(pid_decode_graph(NANO, put_latent(comfy, "odd_names", torch.zeros(1, 12, 2, 2))), timeout=120)


def line_of(comfy, graph: dict) -> str:
    """Queue a graph that fails; returns its line, after the server has answered another prompt."""
    with pytest.raises(PromptError) as failed:
        comfy.queue(graph, timeout=120)
    lives(comfy)
    line = failed.value.message.strip()
    assert line.isprintable() and len(line) < 1000, line
    return line


def load(node: str, file) -> dict:
    """A node that reads a file, and one that wants what it read."""
    if node == "PiDKitLoadLatent":
        user = {"class_type": "SaveLatent", "inputs": {"samples": link("file"), "filename_prefix": "odd"}}
    else:
        user = {"class_type": "PreviewAny", "inputs": {"source": link("file", 1)}}
    return {"file": {"class_type": node, "inputs": {"file": file}}, "user": user}


def test_a_checkpoint_that_cannot_be_read(comfy):
    path = comfy.models / "diffusion_models" / f"{LATIN}.safetensors"
    path.write_bytes(b"abcdef")
    graph = decode_graph(path.name, put_latent(comfy, "odd", torch.zeros(1, 12, 2, 2)))
    assert r"caf\udce9.safetensors" in line_of(comfy, graph)


@pytest.mark.parametrize("node", ["PiDKitLoadLatent", "PiDKitLoadCaption"])
def test_another_file_that_cannot_be_read(comfy, node):
    ending = "latent" if node == "PiDKitLoadLatent" else "safetensors"
    path = comfy.input / f"{LATIN}.{ending}"
    path.write_bytes(b"abcdef")
    comfy.object_info(node)
    assert rf"caf\udce9.{ending}" in line_of(comfy, load(node, path.name))


def test_files_that_are_fine_are_used_under_any_name(comfy):
    path = save_tiny(comfy.models / "diffusion_models" / f"fine_{LATIN}.safetensors", caption=3)
    (comfy.input / f"fine_{LATIN}.latent").write_bytes(latent_bytes(SavedLatent(torch.zeros(1, 16, 2, 2), "flux")))
    write_caption(comfy.input / f"fine_{LATIN}.safetensors", Caption(torch.ones(1, 3, 24)))
    for graph in (
        decode_graph(path.name, put_latent(comfy, "fine", torch.zeros(1, 16, 2, 2))),
        load("PiDKitLoadLatent", f"fine_{LATIN}.latent"),
        load("PiDKitLoadCaption", f"fine_{LATIN}.safetensors"),
    ):
        comfy.queue(graph, timeout=120)
    lives(comfy)


def test_tensor_names_that_do_not_print(comfy):
    path = comfy.models / "diffusion_models" / "odd_tensors.pth"
    torch.save(tiny_state_dict() | {f"net.{HALF}\n\x1b[31m{'x' * 9999}": torch.zeros(1)}, path)
    line = line_of(comfy, decode_graph(path.name, put_latent(comfy, "odd", torch.zeros(1, 16, 2, 2))))
    assert r"1 unexpected tensors (\ud800\n\x1b[31mx" in line and "x" * 80 not in line


TEXTS = {
    "PiDKitLoader": ("model_name", {"dtype": "auto"}),
    "PiDKitDownload": ("file", {}),
    "PiDKitLoadLatent": ("file", {}),
    "PiDKitLoadCaption": ("file", {}),
    "PiDKitSaveLatent": ("filename_prefix", {"latent": link("latent"), "latent_format": "rgb", "degrade_sigma": 0.0}),
    "PiDKitSaveCaption": ("filename_prefix", {"caption": link("pid"), "dtype": "float32"}),
    "PiDKitCaption": ("text", {"cache": True}),
    "PiDKitUpscale": ("model_set", {"image": link("image"), "target": "2K", "factor": 1.0, "strength": "faithful"}),
    "PiDKitSigmaSweep": ("sigmas", {"model": link("model"), "latent": link("latent"), "picture": 1, "seeds": "0"}),
}


@pytest.mark.parametrize("node", TEXTS)
@pytest.mark.parametrize("text", [HALF, "two\nlines \x1b[31m" + "x" * 100_000], ids=["half", "long"])
def test_text_that_comes_by_a_link(comfy, node, text):
    name, inputs = TEXTS[node]
    graph = pid_decode_graph(NANO, put_latent(comfy, "odd_names", torch.zeros(1, 12, 2, 2)))
    graph["pid"] = decode_graph(NANO, "odd_names.latent")["pid"]
    graph["image"] = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    graph["text"] = {"class_type": "TestAnyText", "inputs": {"value": text}}
    defaults = {"PiDKitUpscale": {"seed": 0}, "PiDKitSigmaSweep": {"steps": 1}}.get(node, {})
    graph["odd"] = {"class_type": node, "inputs": inputs | defaults | {name: link("text")}}
    outputs = comfy.object_info(node)["output"]
    if outputs:
        graph["want"] = {"class_type": "PreviewAny", "inputs": {"source": link("odd")}}
    line_of(comfy, graph)
