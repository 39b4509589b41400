"""The fixture `front_end`: ComfyUI's own page in Debian's Chromium."""

import os

import pytest

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
def session_front_end(browser, comfy):
    from support.front_end import FrontEnd

    return FrontEnd(browser, comfy)


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "vue"])
def vue(request) -> bool:
    """Both renderings of nodes; all tests of a file in the one, then in the other: between them the page loads anew."""
    return request.param


@pytest.fixture
def front_end(session_front_end):
    """The page, not loaded yet: call open() first. Afterwards nothing may be red in the console."""
    session_front_end.errors.clear()
    yield session_front_end
    assert not session_front_end.errors
