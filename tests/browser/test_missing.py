"""What ComfyUI offers where model files, or the pack itself, are missing. No test reaches the network."""

import pytest

import comfy_env
from support.front_end import ELSEWHERE

FOLDER = comfy_env.ROOT / "example_workflows"
BY_HAND = {
    "pid_with_flux_to_4k": ["clip_l.safetensors", "flux1-dev.safetensors", "t5xxl_fp16.safetensors"],
    "pid_with_flux2_klein_to_4k": ["flux-2-klein-4b.safetensors"],
    "pid_with_sdxl_to_4k": ["sd_xl_base_1.0.safetensors"],
    "pid_with_z_image_turbo_to_4k": [],
}

# What the front end looks for: texts of lists that are not in them.
NOT_IN_LISTS = """() => app.graph.nodes.flatMap(n => n.widgets ?? [])
  .filter(w => w.type === "combo" && w.value && !w.options.values.includes(w.value)).map(w => w.value)"""


@pytest.fixture(autouse=True)
def alone(front_end):
    """No other machine can be reached: what is offered is in the file."""
    front_end.page.route(ELSEWHERE, lambda route: route.abort())
    yield
    front_end.page.unroute(ELSEWHERE)


@pytest.mark.parametrize("name", BY_HAND)
def test_missing_models_are_offered_with_their_links(front_end, name):
    front_end.open()
    front_end.drop(FOLDER / f"{name}.json")
    page, files = front_end.page, BY_HAND[name]
    assert sorted(front_end.js(NOT_IN_LISTS)) == files
    if not files:
        return
    page.get_by_test_id("error-overlay-see-errors").click()
    page.get_by_test_id("missing-model-download").nth(len(files) - 1).wait_for()
    front_end.screenshot(f"missing_models_{name}")
    assert page.get_by_test_id("missing-model-download").count() == len(files)
    for file in files:
        assert page.get_by_text(file).first.is_visible()
    page.keyboard.press("Escape")


def test_a_missing_pack_is_named(front_end):
    """Nodes that this pack does not have, as all of them are where it is not installed."""
    workflow = (FOLDER / "pid_upscale.json").read_text(encoding="utf-8")
    front_end.open()
    front_end.drop_text(workflow.replace('"type": "PiDKitUpscale"', '"type": "PiDKitOfAnotherDay"'), "gone.json")
    page = front_end.page
    page.get_by_test_id("error-overlay-see-errors").click()
    page.get_by_test_id("missing-node-card").get_by_text("pidkit", exact=True).first.wait_for()
    front_end.screenshot("missing_pack")
    page.keyboard.press("Escape")
