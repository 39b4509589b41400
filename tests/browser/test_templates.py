"""ComfyUI's template browser: what a search finds, and in which order."""

import json

import pytest

import comfy_env

NAMES = sorted(file.stem for file in (comfy_env.ROOT / "example_workflows").glob("*.json"))


def needs_download(name: str) -> bool:
    graph = json.loads((comfy_env.ROOT / "example_workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
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
    assert sorted(name for name in found() if name in NAMES) == NAMES
