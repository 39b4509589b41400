"""The example workflows that are apps, in ComfyUI's App mode."""

import pytest

import comfy_env

pytestmark = pytest.mark.nodes_2
FOLDER = comfy_env.ROOT / "example_workflows"
# What each offers: the line under the widget.
APPS = {
    "pid_upscale": [
        "Picture to enlarge",
        "Size of the result",
        "With factor: how many times",
        "How much is drawn anew",
        "bundled needs no download",
        "What it shows; not for bundled",
        "NVIDIA's: non-commercial only",
    ],
    "pid_tune_per_image": ["How much to restore each", "Picture 1", "Picture 2", "Picture 3"],
    "pid_sigma_sweep": ["Picture to restore", "Strengths to try", "Click the best one", "The one to keep"],
}
# Parts of our widgets that reach out of their place in the panel: over the next widget, or where nobody sees them.
PLACES = """() => [...document.querySelectorAll("[data-testid=app-mode-widget-item]")].flatMap(item => {
  const place = item.getBoundingClientRect();
  return [...item.querySelectorAll(".pidkit-stage, .pidkit-card, .pidkit-tile, .pidkit button, .pidkit select")]
    .filter(part => part.checkVisibility())
    .map(part => {
      const { left, right, bottom } = part.getBoundingClientRect();
      const inside = left >= place.left && right <= place.right && bottom <= place.bottom + 1;
      return [part.className || part.textContent, inside];
    });
})"""
ONE_STEP = """() => app.graph.nodes.flatMap(n => n.widgets ?? []).filter(w => w.name === "steps")
  .forEach(w => { w.value = 1; })"""


def all_inside(front_end):
    """Our widgets' parts lie in the places that App mode gives them."""
    places = front_end.js(PLACES)
    assert len(places) >= 5 and [name for name, inside in places if not inside] == []


@pytest.fixture
def opened(front_end):
    def open_app(name):
        front_end.open(VueNodes_Enabled=True)
        front_end.drop(FOLDER / f"{name}.app.json")
        front_end.page.get_by_test_id("linear-widgets").wait_for()
        front_end.js(ONE_STEP)
        return front_end.page

    return open_app


def run(front_end):
    return front_end.run(front_end.page.get_by_test_id("linear-run-button").get_by_role("button", name="Run"))


def shown_result(front_end):
    """Waits for the picture beside the widgets; returns its size."""
    front_end.wait(
        """() => [...document.querySelectorAll("img")].some(i => i.naturalWidth >= 768 && !i.closest(".pidkit")
          && !i.closest("[data-testid=linear-widgets]"))"""
    )


@pytest.mark.parametrize("name", APPS)
def test_offers_its_inputs(front_end, opened, name):
    page = opened(name)
    items = page.get_by_test_id("app-mode-widget-item")
    front_end.screenshot(f"app_{name}")
    assert items.count() == len(APPS[name])
    if page.get_by_test_id("app-mode-widget-description").count():  # newer front ends show them
        assert page.get_by_test_id("app-mode-widget-description").all_inner_texts() == APPS[name]


def test_the_tuner_tunes_and_compares(front_end, opened):
    page = opened("pid_tune_per_image")
    page.get_by_role("button", name="Load pictures").click()
    front_end.wait_for_images(".pidkit-thumb img", 3)
    page.locator(".pidkit-take").nth(2).click()
    run(front_end)
    shown_result(front_end)
    page.locator(".pidkit-thumb").nth(2).click()
    front_end.wait_for_images(".pidkit-stage img", 2)
    front_end.screenshot("app_tuner_compared")
    all_inside(front_end)


def test_the_sweep_draws_and_the_best_is_kept(front_end, opened):
    page = opened("pid_sigma_sweep")
    run(front_end)
    shown_result(front_end)
    front_end.wait_for_images(".pidkit-tile img", 5)
    all_inside(front_end)
    page.locator(".pidkit-tile").nth(2).click()
    assert page.get_by_role("slider", name="degrade_sigma of picture 1").input_value() == "0.2"
    front_end.screenshot("app_sweep_run")


def test_a_picture_is_enlarged(front_end, opened):
    opened("pid_upscale")
    run(front_end)
    shown_result(front_end)
    front_end.screenshot("app_upscale_run")
