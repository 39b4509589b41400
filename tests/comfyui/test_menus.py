"""What a user finds in ComfyUI's menus, and which inputs a node shows at first."""

import pytest

from locales import inputs_of, our_nodes

FIRST_PAGE = {"PiDKitUpscale", "PiDKitLoader", "PiDKitDecode", "PiDKitPrepareImage", "PiDKitSigmaTuner"}
OTHER_PAGES = {"PiD/sampling", "PiD/picture", "PiD/files"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


@pytest.fixture(scope="module")
def known(comfy) -> dict:
    return comfy.object_info()


def shown_widgets(node: dict) -> list[str]:
    """Names of a node's inputs with a widget that are not behind "Show advanced inputs"."""
    found = []
    for name, (kind, settings) in inputs_of(node).items():
        widget = (isinstance(kind, list) or kind in WIDGETS) and not settings.get("forceInput")
        if widget and not settings.get("advanced"):
            found.append(name)
    return found


def test_the_first_page_of_the_menu_holds_what_an_artist_needs(known):
    nodes = our_nodes(known)
    assert {name for name, node in nodes.items() if node["category"] == "PiD"} == FIRST_PAGE
    assert {node["category"] for node in nodes.values()} == {"PiD", *OTHER_PAGES}


def test_no_name_is_one_of_another_node(known):
    ours = our_nodes(known)
    others = {(node["display_name"] or name).lower() for name, node in known.items() if name not in ours}
    assert len(others) > 100  # ComfyUI's own
    names = [node["display_name"].lower() for node in ours.values()]
    assert sorted(set(names)) == sorted(names)
    assert others.isdisjoint(names)


def test_pid_decode_shows_few_inputs_at_first(known):
    assert shown_widgets(known["PiDKitDecode"]) == ["degrade_sigma", "steps", "seed", "colour_hold", "text"]


def test_no_node_shows_many_inputs_at_first(known):
    for name, node in our_nodes(known).items():
        assert len(shown_widgets(node)) <= 6, name
