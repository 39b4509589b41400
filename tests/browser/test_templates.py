"""ComfyUI's template browser: what a search finds, and in which order."""

import json

import pytest

import comfy_env

NAMES = sorted(file.stem for file in (comfy_env.ROOT / "example_workflows").glob("*.json"))


def needs_download(name: str) -> bool:
    file = comfy_env.ROOT / "example_workflows" / "api" / f"{name.removesuffix('.app')}.json"
    graph = json.loads(file.read_text(encoding="utf-8"))
    return any("fetch: " in str(value) for node in graph.values() for value in node["inputs"].values())


@pytest.fixture
def found(front_end):
    """The names of our templates that a search for "pid" shows, in the order of the page."""
    front_end.open()
    front_end.page.get_by_role("button", name="Templates", exact=True).click()
    dialog = front_end.dialogs().first
    dialog.get_by_placeholder("Search").fill("pid")
    dialog.get_by_test_id(f"template-workflow-{NAMES[0]}").wait_for()
    cards = dialog.locator("[data-testid^=template-workflow-]")
    yield lambda: [card.get_attribute("data-testid").removeprefix("template-workflow-") for card in cards.all()]
    front_end.page.keyboard.press("Escape")


def test_a_search_for_pid_finds_every_workflow(front_end, found):
    front_end.screenshot("templates")
    names = [name for name in found() if name in NAMES]
    assert sorted(names) == NAMES
    # sorted by name in every version, and newer ones sort by relevance as long as there is a search
    older = front_end.comfy.get("/system_stats")["system"]["comfyui_version"] == "0.25.0"
    for order in (NAMES, NAMES if older else names):
        assert [needs_download(name) for name in order] == sorted(needs_download(name) for name in order)


def test_a_large_workflow_opens_with_its_texts(front_end):
    """Not so small that the classic rendering draws none, and with its note in view."""
    front_end.open()
    front_end.page.get_by_role("button", name="Templates", exact=True).click()
    dialog = front_end.dialogs().first
    dialog.get_by_placeholder("Search").fill("pid")
    dialog.get_by_test_id("template-workflow-pid_sigma_sweep").click()
    front_end.wait("() => app.graph.nodes.some(n => n.type === 'PiDKitSigmaSweep')")
    front_end.wait("() => !app.canvas.low_quality && app.canvas.ds.scale >= 0.6")
    (note,) = [box for box in front_end.boxes() if box["type"] == "MarkdownNote"]
    assert note["left"] > 60 and note["top"] > 90 and note["bottom"] < 1000
    front_end.screenshot("template_opened")
