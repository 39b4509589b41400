"""Help inside ComfyUI: the page of every node in the user's language, with its picture, no wider than the panel."""

import json

import pytest

from locales import locale_file

# What of a page lies outside the panel or has to be scrolled sideways.
TOO_WIDE = """() => {
  const page = document.querySelector(".markdown-content");
  const { right } = page.getBoundingClientRect();
  const parts = [page.parentElement, page, ...page.querySelectorAll("*")];
  return parts.filter(part => part.scrollWidth > part.clientWidth && part.clientWidth > 0
                              || part.getBoundingClientRect().right > right + 1 && page.contains(part))
    .map(part => `${part.tagName} ${part.scrollWidth} > ${part.clientWidth}: ${part.textContent.slice(0, 60)}`);
}"""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_help_panel_shows_every_page_in_its_width(front_end, language):
    words = json.loads(locale_file(language).read_text(encoding="utf-8"))
    page = front_end.page.locator(".markdown-content")
    too_wide = {}
    front_end.open(Locale=language)
    nodes = {name: front_end.add_node(name) for name in words}
    for name, node in words.items():
        front_end.select(nodes[name])
        if name == next(iter(words)):
            front_end.page.get_by_test_id("info-button").click()  # the panel stays, and follows what is selected
        page.get_by_role("heading", name=node["display_name"], exact=True).wait_for()
        front_end.wait(
            """() => { const images = [...document.querySelectorAll(".markdown-content img")];
                       return images.length && images.every(image => image.naturalWidth > 0); }"""
        )
        front_end.screenshot(f"help_{language}_{name}")
        if found := front_end.js(TOO_WIDE):
            too_wide[name] = found
    assert not too_wide
    # the panel that these pages are written for
    assert page.bounding_box()["width"] < 320


def test_every_node_can_be_added(front_end):
    front_end.open()
    types = front_end.js(
        "() => Object.keys(LiteGraph.registered_node_types).filter(t => t.startsWith('PiDKit')).sort()"
    )
    assert types
    for place, node_type in enumerate(types):
        node = front_end.add_node(node_type, x=1500 * place)
        front_end.show(node)
        front_end.screenshot(f"node_{node_type}", node)
