"""Inputs that come by a link: ComfyUI asks about them before it knows them, and gives None."""

import inspect

import pytest
import torch

from pid_core.hub.catalogue import get_file
from support.graphs import decode_graph, link, put_latent
from support.hub_server import HubServer
from support.tiny import save_tiny

PID = get_file("pid_sdxl_1024_to_4096_4step_bf16.safetensors")
HOOKS = ("fingerprint_inputs", "validate_inputs")


def test_no_node_fails_over_an_input_that_is_linked(comfyui):
    asked = 0
    for node in comfyui.nodes.NODES:
        node.GET_SCHEMA()
        names = [entry.id for entry in node.define_schema().inputs]
        for hook in HOOKS:
            if hook in node.__dict__:
                call = getattr(node, hook)
                wanted = inspect.signature(call).parameters
                takes_all = any(one.kind is one.VAR_KEYWORD for one in wanted.values())
                nothing = (None,) if node.define_schema().is_input_list else None
                linked = {name: nothing for name in names if takes_all or name in wanted}  # as ComfyUI gives them
                answer = call(**linked)
                assert hook == "fingerprint_inputs" or answer is True or isinstance(answer, str), node.__name__
                # another with every run
                anew = hook == "fingerprint_inputs" and node.__name__ in ("PiDKitNextPicture", "PiDKitBench")
                assert (answer != call(**linked)) == anew, node.__name__
                asked += 1
    assert asked >= 5


@pytest.fixture
def hub(comfy, tmp_path) -> HubServer:
    comfy.hub.files[PID.repo, PID.path] = save_tiny(tmp_path / "pid", "sdxl", caption=3, seed=12).read_bytes()
    yield comfy.hub
    (comfy.models / PID.folder / PID.name).unlink(missing_ok=True)


@pytest.mark.parametrize("way", ["PiD Download's name", "fetch: in the loader"])
def test_a_loader_whose_file_was_fetched_in_the_run_runs_once(comfy, hub, way):
    latent = put_latent(comfy, "linked", torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(2)))
    graph = decode_graph(PID.name, latent)
    if way.startswith("fetch"):
        graph["model"]["inputs"] |= {"model_name": f"fetch: {PID.name}", "accept_licence": True}
    else:
        graph["file"] = {"class_type": "PiDKitDownload", "inputs": {"file": PID.name, "accept_licence": True}}
        graph["model"]["inputs"]["model_name"] = link("file")

    def run() -> list[str]:
        ran = []
        comfy.queue(graph, on_event=lambda kind, data: ran.append(data["node"]) if kind == "executing" else None)
        return [node for node in ran if node]

    assert "model" in run()
    assert run() == []
    (comfy.models / PID.folder / PID.name).unlink()
    assert "model" in run()
    assert run() == []
