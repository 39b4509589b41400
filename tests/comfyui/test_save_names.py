"""PiD Save Latent, PiD Save Caption: any prefix gives new files, or one line; what is loaded lies in its folder."""

import pytest
import torch

from comfy_server import PromptError
from pid_core.captions.text import Caption, read_caption, write_caption
from pid_core.latents.files import SavedLatent, latent_bytes
from support.graphs import link, put_latent


def saver(comfy, node: str, prefix) -> dict:
    """A graph whose node "keep" saves a latent or a caption."""
    inputs = {"filename_prefix": prefix}
    if node == "PiDKitSaveLatent":
        name = put_latent(comfy, "names", torch.ones(1, 4, 2, 2))
        graph = {"source": {"class_type": "LoadLatent", "inputs": {"latent": name}}}
        inputs |= {"latent": link("source"), "latent_format": "auto", "degrade_sigma": 0.0}
    else:
        write_caption(comfy.input / "names.safetensors", Caption(torch.ones(1, 3, 24), "long", "encoder", cut=7))
        graph = {"source": {"class_type": "PiDKitLoadCaption", "inputs": {"file": "names.safetensors"}}}
        inputs |= {"caption": link("source"), "dtype": "float32"}
    return graph | {"keep": {"class_type": node, "inputs": inputs}}


def saved(comfy, graph: dict) -> str:
    """The path of the file that the graph wrote, in the output folder. The server has run it before."""
    comfy.post("/free", {"unload_models": False, "free_memory": True})
    ((entry,),) = comfy.queue(graph).outputs["keep"].values()
    return f"{entry['subfolder']}/{entry['filename']}".lstrip("/")


NODES = {"PiDKitSaveLatent": ".latent", "PiDKitSaveCaption": ".safetensors"}


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("", "PiD"),
        ("{}/", "{}/PiD"),
        ("{}/sub//", "{}/sub/PiD"),
        ("{}/a_1", "{}/a_1"),
        ("{}/a", "{}/a"),
        ("./{}/b", "{}/b"),
    ],
)
def test_numbers_go_on_for_every_prefix(comfy, node, prefix, name):
    prefix, name = prefix.format(node), name.format(node)
    before = len(list(comfy.output.rglob("*_*_.*")))
    there = len(list(comfy.output.glob(f"{name}_00*")))  # of the other node too
    paths = [saved(comfy, saver(comfy, node, prefix)) for _ in range(3)]
    assert paths == [f"{name}_{there + number:05}_{NODES[node]}" for number in (1, 2, 3)]
    assert len(list(comfy.output.rglob("*_*_.*"))) == before + 3


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("prefix", ["a\0b", "x" * 50_000, "../out", "/tmp/out", "a\nb"])
def test_prefixes_that_cannot_be(comfy, node, prefix):
    with pytest.raises(PromptError) as failed:
        comfy.queue(saver(comfy, node, prefix))
    line = failed.value.message.strip()
    assert "filename_prefix" in line and line.isprintable() and len(line) < 300


def test_a_caption_that_was_cut_stays_one(comfy):
    path = comfy.output / saved(comfy, saver(comfy, "PiDKitSaveCaption", "captions/cut"))
    assert (read_caption(path).cut, read_caption(path).text) == (7, "long")


@pytest.mark.parametrize("node", ["PiDKitLoadLatent", "PiDKitLoadCaption"])
@pytest.mark.parametrize("way", ["../secret", "sub/../../secret", "{outside}/secret", "../secret{ending} [output]"])
def test_names_by_a_link_stay_inside(comfy, node, way):
    """ComfyUI v0.25 does not look."""
    outside, ending = comfy.input.parent, NODES[node.replace("Load", "Save")]
    if ending == ".latent":
        (outside / "secret.latent").write_bytes(latent_bytes(SavedLatent(torch.zeros(1, 4, 2, 2))))
    else:
        write_caption(outside / "secret.safetensors", Caption(torch.ones(1, 3, 24)))
    name = way.format(outside=outside, ending=ending)
    name = name if "[" in name else name + ending
    graph = {
        "name": {"class_type": "TestAnyText", "inputs": {"value": name}},
        "file": {"class_type": node, "inputs": {"file": link("name")}},
        "want": {"class_type": "PreviewAny", "inputs": {"source": link("file")}},
    }
    with pytest.raises(PromptError, match="no such file"):
        comfy.queue(graph)


@pytest.mark.parametrize("linked", [True, False])
def test_nan_as_the_default_sigma_is_refused(comfy, linked):
    """In the history it would be JSON that no browser reads."""
    graph = {
        "image": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "tuner": {
            "class_type": "PiDKitSigmaTuner",
            "inputs": {"image": link("image"), "default_sigma": float("nan"), "sigmas": "", "pictures": ""},
        },
    }
    if linked:
        graph["number"] = {"class_type": "PrimitiveFloat", "inputs": {"value": float("nan")}}
        graph["tuner"]["inputs"]["default_sigma"] = link("number")
    with pytest.raises(PromptError, match="default_sigma must be"):
        comfy.queue(graph)
    # ComfyUI itself puts the inputs of a failed node into its history, and the browser tests look at that
    comfy.post("/history", {"clear": True})
