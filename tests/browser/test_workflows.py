"""The example workflows, dragged in and run as a user does it."""

import json

import pytest

import comfy_env

WORKFLOWS = sorted((comfy_env.ROOT / "example_workflows").glob("*.json"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflow_opens_and_makes_its_api_file(front_end, file):
    front_end.open()
    front_end.drop(file)
    assert front_end.missing() == []
    assert front_end.dialogs().count() == 0
    front_end.show()
    front_end.screenshot(f"workflow_{file.stem}")

    made = front_end.js("async () => (await app.graphToPrompt()).output")
    stored = json.loads((file.parent / "api" / file.name).read_text(encoding="utf-8"))
    assert {key: node["class_type"] for key, node in made.items()} == {k: n["class_type"] for k, n in stored.items()}
    for key, node in stored.items():
        assert made[key]["inputs"] == node["inputs"], node["class_type"]


def test_the_demo_runs_and_shows_its_picture(front_end, root, vue):
    front_end.open(VueNodes_Enabled=vue)
    front_end.drop(root / "example_workflows" / "pid_upscale_demo.json")
    front_end.show()
    front_end.run()
    front_end.wait_for_pictures("SaveImage")
    front_end.screenshot(f"demo_{'vue' if vue else 'classic'}")
