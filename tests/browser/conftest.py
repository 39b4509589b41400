"""The fixture `front_end`: ComfyUI's own page in Debian's Chromium."""

import os
from pathlib import Path

import pytest

from support.page import OPEN_PAGE

HERE = Path(__file__).parent
MISSING = "no Chromium: install Debian's package `chromium`, or name a browser in CHROMIUM"


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    from support.front_end import find_chromium

    chromium = find_chromium()
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(f"NOT TESTED in a browser: {MISSING}")
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, which CI is; it only sees our own server.
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=chromium, args=[*sandbox, "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def session_front_end(browser, comfy, request):
    from support.front_end import FrontEnd

    front_end = FrontEnd(browser, comfy)
    request.config.stash[OPEN_PAGE] = front_end
    return front_end


@pytest.fixture(params=[False, True], ids=["classic", "vue"])
def vue(request) -> bool:
    """Both renderings of nodes."""
    return request.param


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests in the classic rendering, then all in Nodes 2.0: between the two the page loads anew, for seconds."""
    places = [place for place, item in enumerate(items) if item.path.parent == HERE]
    ordered = sorted((items[place] for place in places), key=in_nodes_2)
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def in_nodes_2(item: pytest.Item) -> bool:
    """Whether a test is of Nodes 2.0: by its parameter, or by its mark where it knows no other rendering."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("vue", item.get_closest_marker("nodes_2") is not None)


@pytest.fixture
def front_end(session_front_end):
    """The page, not loaded yet: call open() first. Afterwards nothing may be red in the console."""
    session_front_end.errors.clear()
    yield session_front_end
    assert not session_front_end.errors
