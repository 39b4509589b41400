"""Rare inputs are folded away behind a button, in both renderings, and work as before."""

import pytest

SHOWN = ["degrade_sigma", "steps", "seed", "colour_hold", "text"]
FOLDED = ["latent_format", "latent_noise", "window_mode", "window_size", "window_overlap", "fidelity"]
VALUES = {
    "degrade_sigma": 0.35, "steps": 3, "seed": 7, "latent_format": "flux2", "latent_noise": "keep",
    "window_mode": "manual", "window_size": 1024, "window_overlap": 256, "colour_hold": "mean_deviation",
    "fidelity": 0.25, "text": "a hill",
}  # fmt: skip
# as the front end saved it before any input was folded away; control_after_generate stands behind the seed
SAVED = [*list(VALUES.values())[:3], "fixed", *list(VALUES.values())[3:]]


@pytest.fixture
def fe(front_end, vue):
    front_end.open(VueNodes_Enabled=vue)
    return front_end


def visible(fe, vue: bool, node: int) -> list[str]:
    """Names of the inputs with a widget that a user sees on the node."""
    fe.settle()
    if not vue:
        return fe.js(
            """id => { const node = app.graph.getNodeById(id);
              return node.getLayoutWidgets().filter(w => node.isWidgetVisible(w) && w.options.serialize !== false)
                .map(w => w.name); }""",
            node,
        )
    names = fe.js("id => app.graph.getNodeById(id).widgets.map(w => w.name)", node)
    drawn = fe.page.locator(f'[data-node-id="{node}"]')
    drawn.wait_for()
    text = drawn.inner_text() + " ".join(drawn.locator("textarea").evaluate_all("all => all.map(t => t.placeholder)"))
    return [name for name in names if name in text.split()]


def press_button(fe, vue: bool, node: int) -> None:
    """Presses "Show advanced inputs" with the mouse."""
    if vue:
        fe.page.locator(f'[data-node-id="{node}"]').get_by_test_id("advanced-inputs-button").click()
        return
    x, y = fe.js(
        """id => { const node = app.graph.getNodeById(id);
          const button = node.widgets.find(w => w.type === "button");
          const { scale, offset } = app.canvas.ds;
          const canvas = app.canvas.canvas.getBoundingClientRect();
          return [canvas.x + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale,
                  canvas.y + (node.pos[1] + button.last_y + button.computedHeight / 2 + offset[1]) * scale]; }""",
        node,
    )
    fe.page.mouse.click(x, y)


def test_rare_inputs_of_pid_decode_are_folded_away(fe, vue):
    node = fe.add_node("PiDKitDecode")
    fe.show(node)
    kind = "vue" if vue else "classic"
    assert [name for name in visible(fe, vue, node) if name in SHOWN + FOLDED] == SHOWN
    fe.screenshot(f"advanced_folded_{kind}", node, margin=20)

    press_button(fe, vue, node)
    fe.wait("id => app.graph.getNodeById(id).showAdvanced", node)
    assert set(FOLDED) < set(visible(fe, vue, node))
    fe.show(node)
    fe.screenshot(f"advanced_open_{kind}", node, margin=20)

    press_button(fe, vue, node)
    fe.wait("id => !app.graph.getNodeById(id).showAdvanced", node)
    assert not set(FOLDED) & set(visible(fe, vue, node))


def test_a_workflow_saved_before_keeps_its_values(fe):
    node = fe.add_node("PiDKitDecode")
    saved = fe.js("() => app.graph.serialize()")
    saved["nodes"][0]["widgets_values"] = SAVED
    saved["nodes"][0].pop("widgets_values_named", None)
    fe.js("async graph => { await app.loadGraphData(graph); }", saved)
    made = fe.js("async () => (await app.graphToPrompt()).output")
    assert {name: made[str(node)]["inputs"].get(name) for name in VALUES} == VALUES
    again = fe.js("() => app.graph.serialize()")
    assert again["nodes"][0]["widgets_values"] == [*SAVED, 0, 1]  # hold and start_at, which came later


def test_a_wired_rare_input_is_seen(fe, vue):
    source, node = fe.add_node("PiDKitLoadLatent"), fe.add_node("PiDKitDecode")
    fe.js(
        """([source, node]) => {
          const [from, to] = [source, node].map(id => app.graph.getNodeById(id));
          from.pos = [-500, 10];
          from.connect(from.findOutputSlot("latent_noise"), to, to.findInputSlot("latent_noise"));
        }""",
        [source, node],
    )
    fe.show(source, node)
    fe.wait("id => app.graph.getNodeById(id).inputs.find(i => i.name === 'latent_noise').link != null", node)
    assert set(visible(fe, vue, node)) & set(FOLDED) == {"latent_noise"}
    fe.screenshot(f"advanced_wired_{'vue' if vue else 'classic'}")


def test_a_folded_seed_takes_its_control_along(fe, vue):
    node = fe.add_node("PiDKitUpscale")
    fe.show(node)
    both = """id => { const node = app.graph.getNodeById(id);
      const seed = node.widgets.find(w => w.name === "seed");
      return [seed, ...seed.linkedWidgets].map(w => node.isWidgetVisible(w)); }"""
    if not vue:
        assert fe.js(both, node) == [False, False]
        press_button(fe, vue, node)
        assert fe.js(both, node) == [True, True]
        return
    drawn = fe.page.locator(f'[data-node-id="{node}"]')
    drawn.get_by_text("model_set").wait_for()
    assert drawn.get_by_text("seed", exact=True).count() == 0
    assert drawn.get_by_text("control", exact=False).count() == 0
