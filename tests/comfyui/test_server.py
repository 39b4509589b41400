"""The pack in a real ComfyUI: it loads, its nodes are there, a bad graph does not take the server down."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from comfy_server import PromptError
from support.graphs import image_graph


def declared_node_ids(root: Path) -> set[str]:
    """Node ids written as node_id="..." in nodes/, read without importing anything."""
    found = set()
    for file in (root / "nodes").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.keyword) and call.arg == "node_id" and isinstance(call.value, ast.Constant):
                found.add(call.value.value)
    return found


def test_pack_loads_without_an_import_error(comfy):
    log = comfy.log()
    assert "IMPORT FAILED" not in log
    assert re.search(r"seconds: .*[/\\]custom_nodes[/\\]", log), comfy.log_tail()


def test_every_declared_node_is_listed(comfy, root):
    declared = declared_node_ids(root)
    listed = comfy.object_info()
    assert declared, "nodes/ declares no node"
    assert all(node.startswith("PiDKit") for node in declared)
    assert declared <= set(listed), f"not listed: {sorted(declared - set(listed))}"
    for node in declared:
        assert listed[node]["category"].split("/")[0] == "PiD"
        assert listed[node]["description"], f"{node} has no description"


def test_an_image_goes_in_and_comes_out(comfy):
    picture = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    name = comfy.upload(picture)
    (back,) = comfy.images(comfy.queue(image_graph(name)), "2")
    assert np.array_equal(back, picture)


def test_server_lives_after_bad_prompts(comfy):
    with pytest.raises(PromptError, match="image") as refused:
        comfy.queue(image_graph("no-such-file.png"))
    assert refused.value.node_id == "1"
    with pytest.raises(PromptError):
        comfy.queue({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert comfy.alive
    name = comfy.upload(np.zeros((8, 8, 3), np.uint8))
    assert comfy.images(comfy.queue(image_graph(name)))[0].shape == (8, 8, 3)


def test_a_failing_node_is_named(comfy):
    name = comfy.upload(np.zeros((8, 8, 3), np.uint8))
    (comfy.input / name).write_bytes(b"not an image")
    with pytest.raises(PromptError) as failed:
        comfy.queue(image_graph(name))
    assert (failed.value.node_id, failed.value.node_type) == ("1", "LoadImage")
    assert comfy.alive
