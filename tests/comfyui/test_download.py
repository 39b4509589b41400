"""PiD Loader and PiD Download fetch what is missing, through ComfyUI, from a local hub."""

import json

import pytest
import torch

from comfy_server import PromptError
from pid_core.captions.text import read_caption
from pid_core.hub.catalogue import FILES, get_file
from support.graphs import decode_graph, image_nodes, link, put_latent, saved_pixels
from support.tiny import save_tiny
from support.tiny_gemma import reference_caption, save_encoder

PID = get_file("pid_sdxl_1024_to_4096_4step_bf16.safetensors")
GEMMA = get_file("gemma_2_2b_it_elm_fp8_scaled.safetensors")


@pytest.fixture
def hub(comfy, tmp_path):
    """The hub with a tiny PiD and a tiny encoder; nothing fetched, no licence accepted."""

    def clean():
        for file in (PID, GEMMA):
            (comfy.models / file.folder / file.name).unlink(missing_ok=True)
        record(comfy).unlink(missing_ok=True)
        comfy.hub.requests.clear()
        comfy.hub.errors.clear()

    clean()
    comfy.hub.files[PID.repo, PID.path] = save_tiny(tmp_path / "pid", "sdxl", caption=3, seed=11).read_bytes()
    comfy.hub.files[GEMMA.repo, GEMMA.path] = save_encoder(tmp_path / "gemma").read_bytes()
    yield comfy.hub
    clean()


def record(comfy):
    return comfy.folder / "user" / "__pidkit" / "licences.json"


def options(comfy, node, key):
    entry = comfy.object_info(node)["input"]["required"][key]
    return entry[0] if isinstance(entry[0], list) else entry[1]["options"]


def graph(comfy, name, seed=5, **inputs):
    latent = put_latent(comfy, "for_download", torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2)))
    graph = decode_graph(name, latent, sampler={"seed": seed})
    graph["model"]["inputs"] |= inputs
    return graph


def test_what_can_be_fetched_is_listed_and_marked(comfy):
    save_tiny(comfy.models / "diffusion_models" / "here.safetensors", "sdxl")
    names = options(comfy, "PiDKitLoader", "model_name")
    assert names[0] == "pid_nano (bundled)"
    assert "here.safetensors" in names
    marked = [name for name in names if name.startswith("fetch: ")]
    assert f"fetch: {PID.name}" in marked
    assert names[-len(marked) :] == marked
    assert options(comfy, "PiDKitDownload", "file") == [file.name for file in FILES]


def test_nothing_is_fetched_before_the_licence_is_accepted(comfy, hub):
    with pytest.raises(PromptError, match="NVIDIA's licence NSCLv1: non-commercial use only") as failed:
        comfy.queue(graph(comfy, f"fetch: {PID.name}"))
    assert failed.value.node_type == "PiDKitLoader"
    assert "switch accept_licence on in this node" in failed.value.message
    assert hub.requests == []
    assert not record(comfy).exists()


def test_a_model_fetches_itself_and_its_name_stays_valid(comfy, hub):
    name = f"fetch: {PID.name}"
    seen = []
    first = comfy.queue(
        graph(comfy, name, accept_licence=True),
        on_event=lambda kind, data: seen.append(data) if kind == "progress" and data["node"] == "model" else None,
    )
    path = comfy.models / "diffusion_models" / PID.name
    assert path.read_bytes() == hub.files[PID.repo, PID.path]
    assert not path.is_symlink()
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []
    assert seen and seen[-1]["value"] == seen[-1]["max"] == path.stat().st_size
    assert "NSCLv1" in json.loads(record(comfy).read_text(encoding="utf-8"))
    assert f"fetching {PID.name} from https://huggingface.co/Comfy-Org/PixelDiT, under NVIDIA's licence" in comfy.log()

    # the saved workflow, the file by its own name, and both in the list
    hub.requests.clear()
    again = comfy.queue(graph(comfy, name, accept_licence=False))
    by_name = comfy.queue(graph(comfy, PID.name))
    for other in (again, by_name):
        assert torch.equal(saved_pixels(comfy, other), saved_pixels(comfy, first))
    assert hub.requests == []
    assert {name, PID.name} <= set(options(comfy, "PiDKitLoader", "model_name"))


def test_a_file_deleted_since_is_fetched_again_without_asking(comfy, hub):
    comfy.queue(graph(comfy, f"fetch: {PID.name}", seed=6, accept_licence=True))
    (comfy.models / "diffusion_models" / PID.name).unlink()
    comfy.queue(graph(comfy, f"fetch: {PID.name}", seed=7))
    assert len(hub.for_bytes()) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((403, "GatedRepo"), "its page asks for consent. Open https://huggingface.co/Comfy-Org/PixelDiT"),
        ((404, "EntryNotFound"), "any more"),
        ((503, None), "the hub answered 503"),
    ],
)
def test_what_the_hub_refuses_is_said_on_the_node(comfy, hub, answer, message):
    hub.errors[PID.repo, PID.path] = answer
    with pytest.raises(PromptError, match=message) as failed:
        comfy.queue(graph(comfy, f"fetch: {PID.name}", accept_licence=True))
    assert failed.value.node_type == "PiDKitLoader"
    assert "\n" not in failed.value.message.strip()


def test_a_damaged_file_heals_itself(comfy, hub):
    path = comfy.models / "diffusion_models" / PID.name
    path.write_bytes(b"<!DOCTYPE html><html>Please sign in</html>")
    said = []
    comfy.queue(
        graph(comfy, f"fetch: {PID.name}", seed=8, accept_licence=True),
        on_event=lambda kind, data: said.append(data["text"]) if kind == "text" and data["node"] == "model" else None,
    )
    assert path.read_bytes() == hub.files[PID.repo, PID.path]
    aside = path.with_name(f"{PID.name}.damaged")
    assert any(f"it is called {aside.name} now" in text for text in said)
    aside.unlink()


def test_download_feeds_another_packs_loader(comfy, hub):
    download = {"class_type": "PiDKitDownload", "inputs": {"file": GEMMA.name}}
    nodes = {
        "file": download,
        "clip": {"class_type": "CLIPLoader", "inputs": {"clip_name": link("file"), "type": "pixeldit"}},
        "caption": {"class_type": "PiDKitCaption", "inputs": {"text": "a hare", "cache": True, "clip": link("clip")}},
        "save": {
            "class_type": "PiDKitSaveCaption",
            "inputs": {"caption": link("caption"), "filename_prefix": "captions/fetched", "dtype": "float32"},
        },
    }
    with pytest.raises(PromptError, match="Gemma terms of use"):
        comfy.queue(nodes)
    download["inputs"]["accept_licence"] = True
    (entry,) = comfy.queue(nodes).outputs["save"]["captions"]
    caption = read_caption(comfy.output / entry["subfolder"] / entry["filename"])
    assert torch.allclose(caption.states, reference_caption("a hare"), atol=1e-4)
    assert caption.encoder


def test_an_unknown_marked_name(comfy):
    with pytest.raises(PromptError, match="not in its list"):
        comfy.queue(graph(comfy, "fetch: anything.safetensors") | image_nodes("sampler"))
