"""While PiD Decode runs, its node says how long it still takes and its bar moves; afterwards, how long it took."""

import re

import numpy as np
from PIL import Image

LISTEN = """() => {
  window.said = [];
  app.api.addEventListener("progress_text", ({ detail }) => window.said.push(detail.text));
  window.bar = [];
  app.api.addEventListener("progress", ({ detail }) => window.bar.push(detail.value / detail.max));
}"""
GRAPH = {
    "load": {"class_type": "LoadImage", "inputs": {"image": ""}},
    "latent": {"class_type": "PiDKitRGBLatent", "inputs": {"image": ["load", 0], "odd_size": "pad"}},
    "model": {"class_type": "PiDKitLoader", "inputs": {"dtype": "auto"}},
    "decode": {
        "class_type": "PiDKitDecode",
        "inputs": {"model": ["model", 0], "latent": ["latent", 0], "degrade_sigma": 0.0, "steps": 4, "seed": 3},
    },
    "save": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
}
SHOWN = """text => document.body.innerText.includes(text)
  || app.graph.nodes.some(n => n.widgets?.some(w => String(w.value ?? "").includes(text)))"""
DONE = re.compile(r"^\d+ x .* in .* (s|min)(;|$)", re.MULTILINE)


def test_time_left_is_on_the_node_while_it_runs(front_end, comfy, vue):
    """A picture with odd sides, large enough for several seconds on any machine."""
    picture = np.random.default_rng(int(vue)).integers(0, 256, (121, 181, 3), dtype=np.uint8)
    graph = {name: {**node, "inputs": dict(node["inputs"])} for name, node in GRAPH.items()}
    graph["load"]["inputs"]["image"] = comfy.upload(Image.fromarray(picture), f"progress_{vue}.png")
    front_end.open_anew(VueNodes_Enabled=vue)
    names = front_end.js(
        "async graph => { await app.loadApiJson(graph, 'progress'); return app.graph.nodes.length; }", graph
    )
    assert names == len(graph)
    front_end.js(LISTEN)
    front_end.show()
    front_end.js("() => { app.queuePrompt(0); }")
    front_end.wait("() => window.said.some(text => / left/.test(text))")
    front_end.wait(SHOWN, " left")
    front_end.screenshot(f"progress_{'vue' if vue else 'classic'}")
    while not DONE.search(last := front_end.js("() => window.said.at(-1)")):
        front_end.wait("last => window.said.at(-1) !== last", last)
    assert re.match(r"724 x 484 in \d+ windows of \d+ x \d+, about \d\.\d GB, \d+ (s|min)", last)
    front_end.wait(SHOWN, last.split(";")[0])
    front_end.wait_for_text(last.split(";")[0])
    if not vue:
        front_end.wait("() => document.querySelector('.dom-widget .pidkit-words')")
        style = "() => getComputedStyle(document.querySelector('.dom-widget .pidkit-words')).wordBreak"
        assert front_end.js(style) == "normal"  # no word is broken
    bar = front_end.js("() => window.bar")
    assert bar == sorted(bar) and len([value for value in bar if 0 < value < 0.25]) >= 1
    front_end.screenshot(f"progress_done_{'vue' if vue else 'classic'}")
