"""PiD Touch Up on the page: its example workflow, its variations as tiles, and a click that keeps one."""

import numpy as np


def test_a_click_on_a_variation_keeps_it(front_end, root, vue):
    front_end.open(VueNodes_Enabled=vue)
    front_end.drop(root / "example_workflows" / "pid_touch_up.json")
    page, node, save = front_end.page, front_end.id_of("PiDKitTouchUp"), front_end.id_of("SaveImage")
    first = front_end.run()
    front_end.show(node)
    front_end.wait_for_images(".pidkit-tile img", 3)
    tiles = page.locator(".pidkit-tile")
    assert [tile.get_attribute("aria-pressed") for tile in tiles.all()] == ["true", "false", "false"]
    tiles.nth(1).click()
    assert page.locator(".pidkit-sweep .pidkit-note").inner_text().startswith("Variation 2 is kept")
    front_end.screenshot(f"touch_up_{'vue' if vue else 'classic'}", node)
    second = front_end.run()
    front_end.wait_for_text("0 decoded, 3 kept from before")
    assert tiles.nth(1).get_attribute("aria-pressed") == "true"
    (before,), (after,) = (np.asarray(front_end.pictures(run, save)[0], dtype=float)[None] for run in (first, second))
    changed = np.abs(before - after).max(-1)
    assert changed[140:320, 140:340].any() and not changed[480:].any() and not changed[:, 480:].any()
