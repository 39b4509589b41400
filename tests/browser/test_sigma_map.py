"""PiD Sigma Map on the page: its example workflow, the map in colours, and the sweep's click."""

import numpy as np

ADD_SWEEP = """() => {
  const [map, model, latent] = ["PiDKitSigmaMap", "PiDKitLoader", "PiDKitRGBLatent"]
    .map(type => app.graph.nodes.find(n => n.type === type));
  const sweep = LiteGraph.createNode("PiDKitSigmaSweep");
  app.graph.add(sweep);
  sweep.pos = [map.pos[0], map.pos[1] + 900];
  sweep.widgets.find(w => w.name === "sigmas").value = "0, 0.3";
  sweep.widgets.find(w => w.name === "latent_noise").value = "scale";
  const connect = (node, output, name) =>
    node.connect(output, sweep, sweep.inputs.findIndex(one => one.name === name));
  connect(model, 0, "model"); connect(latent, 0, "latent"); connect(map, 0, "sigma_list");
  return sweep.id;
}"""


def test_what_is_painted_is_restored_and_the_sweeps_click_sets_it(front_end, root, vue):
    front_end.open(VueNodes_Enabled=vue)
    front_end.drop(root / "example_workflows" / "pid_paint_sigma.json")
    page, sigma_map, save = front_end.page, front_end.id_of("PiDKitSigmaMap"), front_end.id_of("SaveImage")
    sweep = front_end.js(ADD_SWEEP)
    first = front_end.run()
    front_end.show(sigma_map)
    front_end.wait_for_pictures("PiDKitSigmaMap")
    front_end.wait_for_text("0.14 on 11 % of the picture")
    front_end.screenshot(f"sigma_map_{'vue' if vue else 'classic'}", sigma_map)

    front_end.show(sweep)
    front_end.wait_for_images(".pidkit-tile img", 2)
    page.locator(".pidkit-tile").nth(1).click()
    assert page.locator(".pidkit-sweep .pidkit-note").inner_text() == "Picture 1 is set to 0.3."
    second = front_end.run()
    front_end.show(sigma_map)
    front_end.wait_for_text("0.3 on 11 % of the picture")
    (before,), (after,) = (front_end.pictures(run, save) for run in (first, second))
    changed = np.abs(np.subtract(before, after, dtype=float)).max(-1)
    assert changed[140:320, 140:340].mean() > 3  # the eye
    assert changed[480:].max() <= 4 and changed[:, 480:].max() <= 4
