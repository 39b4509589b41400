"""The demo's two ways, ComfyUI and the core alone, draw the same picture."""

import json

import numpy as np
from PIL import Image

import demo


def test_core_alone_draws_comfyuis_picture(comfy, empty_input):
    graph = json.loads(demo.GRAPH.read_text(encoding="utf-8"))
    by_comfyui = np.asarray(demo.through_server(comfy, graph)).astype(int)
    with Image.open(demo.PHOTO) as photo:
        by_core = np.asarray(demo.through_the_core(graph, photo)).astype(int)
    assert by_comfyui.shape == by_core.shape
    assert np.abs(by_comfyui - by_core).max() <= 1
