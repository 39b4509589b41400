"""The example workflows, dragged in and run as a user does it."""

import itertools
import json

import pytest

import comfy_env

FILES = sorted((comfy_env.ROOT / "example_workflows").glob("*.json"))
WORKFLOWS = [file for file in FILES if not file.name.endswith(".app.json")]  # the apps: in test_apps.py


# As long as the longest that nodes write about themselves.
STATUS = (
    "about 40 s left;\n4096 x 4096 in 9 windows of 1728 x 1728, about 13.1 GB;\n"
    "details: qwenimage latent, 3 across, 3 down, overlap at least 512 px, 1 at a time"
)
SAY = """text => {
  const own = type => LiteGraph.registered_node_types[type]?.nodeData?.input?.hidden?.unique_id;
  const nodes = app.graph.nodes.filter(n => own(n.type));
  for (const node of nodes) app.api.dispatchCustomEvent("progress_text", { nodeId: String(node.id), text });
  return nodes.length;
}"""
WRITTEN = """count => {
  const text = node => node.widgets?.find(w => w.name.includes("text-preview"));
  return app.graph.nodes.filter(text).length === count;
}"""


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflow_opens_and_makes_its_api_file(front_end, file, vue):
    front_end.open(VueNodes_Enabled=vue)
    front_end.drop(file)
    assert front_end.missing() == []
    assert front_end.dialogs().count() == 0
    assert_layout(front_end, f"workflow_{file.stem}_{'vue' if vue else 'classic'}")

    made = front_end.js("async () => (await app.graphToPrompt()).output")
    stored = json.loads((file.parent / "api" / file.name).read_text(encoding="utf-8"))
    assert {key: node["class_type"] for key, node in made.items()} == {k: n["class_type"] for k, n in stored.items()}
    for key, node in stored.items():
        assert made[key]["inputs"] == node["inputs"], node["class_type"]


def assert_layout(front_end, name):
    """Note and first nodes in view; no node over another, also when all that do so have written on themselves."""
    fresh = front_end.boxes()
    first = min(box["left"] for box in fresh if box["type"] != "MarkdownNote")
    for box in fresh:
        if box["type"] == "MarkdownNote" or box["left"] == first:
            assert box["left"] > 60 and box["top"] > 90 and box["right"] < 1600 and box["bottom"] < 1000, box
    front_end.screenshot(name)
    front_end.wait(WRITTEN, front_end.js(SAY, STATUS))
    for boxes in (fresh, front_end.boxes()):
        assert [(a["type"], b["type"]) for a, b in itertools.combinations(boxes, 2) if overlap(a, b)] == []


def overlap(a, b):
    return a["left"] < b["right"] and b["left"] < a["right"] and a["top"] < b["bottom"] and b["top"] < a["bottom"]


def test_the_demo_runs_and_shows_its_picture(front_end, root, vue):
    front_end.open(VueNodes_Enabled=vue)
    front_end.drop(root / "example_workflows" / "pid_upscale_demo.json")
    front_end.show()
    front_end.run()
    front_end.wait_for_pictures("SaveImage")
    front_end.screenshot(f"demo_{'vue' if vue else 'classic'}")
