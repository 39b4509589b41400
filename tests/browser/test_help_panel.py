"""Help inside ComfyUI: the page of a node in the user's language, with its picture."""

import json

import pytest

from locales import locale_file


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_help_panel_shows_the_page(front_end, language):
    front_end.open(Locale=language)
    front_end.add_node("PiDKitSigmaTuner")
    front_end.select_all()
    front_end.page.get_by_test_id("info-button").click()
    title = json.loads(locale_file(language).read_text(encoding="utf-8"))["PiDKitSigmaTuner"]["display_name"]
    page = front_end.page.locator(".markdown-content")
    page.get_by_role("heading", name=title, exact=True).wait_for()
    assert page.get_by_role("table").count() == 2
    front_end.wait("() => document.querySelector('.markdown-content img')?.naturalWidth > 0")
    front_end.screenshot(f"help_{language}")


def test_every_node_can_be_added(front_end):
    front_end.open()
    types = front_end.js(
        "() => Object.keys(LiteGraph.registered_node_types).filter(t => t.startsWith('PiDKit')).sort()"
    )
    assert types
    for node_type in types:
        front_end.open()
        node = front_end.add_node(node_type)
        front_end.show(node)
        front_end.screenshot(f"node_{node_type}", node)
