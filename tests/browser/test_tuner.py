"""PiD Sigma Tuner and PiD Sigma Sweep in the front end, by mouse and keyboard, in both renderings of nodes."""

import json

import pytest

from support.front_end import SCREENSHOTS
from support.tuner_page import Tuner

DISABLED = {"Extension_Disabled": ["PiDKit.SigmaTuner", "PiDKit.SigmaSweep"]}


@pytest.fixture
def tuner(front_end, root, vue) -> Tuner:
    made = Tuner(front_end, root, VueNodes_Enabled=vue)
    made.load()
    return made


def test_sliders_by_mouse_and_keyboard(tuner, vue):
    page = tuner.page
    assert tuner.sigmas == [0, 0, 0]
    box = tuner.slider(2).bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 10, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.3, middle, steps=4)
    page.mouse.move(box["x"] + box["width"] / 2, middle, steps=4)
    page.mouse.up()
    assert tuner.sigmas[1] == pytest.approx(0.5, abs=0.02)

    tuner.slider(3).focus()
    for key in ("End", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    assert tuner.sigmas[2] == 0.98
    assert "untrained" in page.locator(".pidkit-card").nth(2).get_attribute("class")
    page.keyboard.press("3")
    assert tuner.sigmas[2] == 0.6
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")

    page.get_by_role("button", name="Repair").click()
    page.get_by_role("spinbutton", name="degrade_sigma of picture 1").fill("0.333")
    page.keyboard.press("Tab")
    assert tuner.sigmas[0] == 0.33

    suggested = page.locator(".pidkit-take").nth(2)
    value = float(suggested.inner_text().removeprefix("≈"))
    assert 0.1 <= value <= 0.5  # it is the noisy one
    suggested.click()
    assert tuner.sigmas[2] == value
    tuner.fe.screenshot(f"tuner_{'vue' if vue else 'classic'}", tuner.node)

    page.get_by_role("button", name="All the same").click()
    assert tuner.sigmas == [value] * 3
    page.get_by_role("button", name="Reset", exact=True).click()
    assert tuner.sigmas == [0, 0, 0]


def test_values_are_saved_undone_and_copied(tuner):
    page, fe = tuner.page, tuner.fe
    tuner.slider(1).focus()
    page.keyboard.press("2")
    tuner.slider(2).focus()
    page.keyboard.press("3")
    before = [0.3, 0.6, 0]
    assert tuner.sigmas == before

    page.keyboard.press("1")
    assert tuner.sigmas == [0.3, 0, 0]
    page.keyboard.press("Control+z")
    fe.wait("id => app.graph.getNodeById(id).widgets.find(w => w.name === 'sigmas').value[1] === 0.6", tuner.node)
    assert tuner.sigmas == before
    tuner.fe.wait_for_images(".pidkit-thumb img", 3)

    saved = fe.js("() => JSON.stringify(app.graph.serialize())")
    fe.drop_text(saved, "saved.json")
    tuner.page.locator(".pidkit-card").nth(2).wait_for()
    assert tuner.sigmas == before

    fe.js("id => { app.canvas.deselectAll(); app.canvas.select(app.graph.getNodeById(id)); }", tuner.node)
    fe.js("() => app.canvas.copyToClipboard()")
    fe.js("() => app.canvas.pasteFromClipboard()")
    values = """() => app.graph.nodes.filter(n => n.type === 'PiDKitSigmaTuner')
        .map(n => n.widgets.filter(w => ['sigmas', 'pictures'].includes(w.name)).map(w => w.value))"""
    original, copy = fe.js(values)
    assert original == copy and copy[0] == before

    fe.js("() => { for (const n of [...app.graph.nodes]) app.graph.remove(n); }")
    fe.wait("() => document.querySelectorAll('.pidkit').length === 0")


def test_sweep_click_tune_run_again(tuner, vue):
    page, fe = tuner.page, tuner.fe
    fe.show()
    first = fe.run()
    assert len(fe.history(first)["outputs"][str(tuner.fe.id_of("SaveImage"))]["images"]) == 3
    sweep = tuner.fe.id_of("PiDKitSigmaSweep")
    fe.show(sweep)
    tuner.fe.wait_for_images(".pidkit-tile img", 2)
    page.locator(".pidkit-tile").nth(1).click()
    assert page.locator(".pidkit-sweep .pidkit-note").inner_text() == "Picture 2 is set to 0.3."
    assert page.locator(".pidkit-tile").nth(1).get_attribute("aria-pressed") == "true"
    fe.screenshot(f"sweep_{'vue' if vue else 'classic'}", sweep)
    fe.show(tuner.node)
    assert tuner.sigmas == [0, 0.3, 0]

    second = fe.run()
    pictures = (fe.pictures(run, tuner.fe.id_of("SaveImage")) for run in (first, second))
    assert [a.tobytes() != b.tobytes() for a, b in zip(*pictures, strict=True)] == [False, True, False]
    decoded = "id => app.graph.getNodeById(id).widgets.find(w => w.name.includes('text-preview')).value"
    assert "0 decoded, 3 kept from before" in fe.js(decoded, tuner.fe.id_of("PiDKitDecode"))

    page.locator(".pidkit-thumb").nth(1).click()
    tuner.fe.wait_for_images(".pidkit-stage img", 2)
    right = page.locator(".pidkit-layer-right img")
    assert right.get_attribute("src") == fe.picture_url(second, tuner.fe.id_of("SaveImage"), 1)
    divider = page.get_by_role("slider", name="How much of the result to show")
    divider.focus()
    page.keyboard.press("Home")
    at = "() => document.querySelector('.pidkit-stage').style.getPropertyValue('--pidkit-at')"
    assert fe.js(at) == "0%"
    page.locator(".pidkit-stage").click()
    assert float(fe.js(at).removesuffix("%")) == pytest.approx(50, abs=1)
    fe.screenshot(f"compare_{'vue' if vue else 'classic'}", tuner.node)


def test_light_and_small_and_chinese(front_end, root):
    tuner = Tuner(front_end, root, ColorPalette="light", Locale="zh")
    front_end.show(tuner.node)
    front_end.page.get_by_role("button", name="载入图像").click()
    front_end.page.locator(".pidkit-card").nth(2).wait_for()
    tuner.fe.wait_for_images(".pidkit-thumb img", 3)
    assert front_end.js("id => app.graph.getNodeById(id).inputs[0].localized_name", tuner.node) == "图像"
    front_end.screenshot("tuner_light_chinese", tuner.node)
    front_end.js("() => { app.canvas.ds.scale = 0.35; app.canvas.setDirty(true, true); }")
    front_end.settle()
    assert front_end.page.locator(".pidkit-thumb").first.is_visible()
    front_end.screenshot("tuner_small")


def test_fifty_pictures(front_end, root):
    tuner = Tuner(front_end, root)
    tuner.load()
    many = """async id => {
      const node = app.graph.getNodeById(id), url = name => ({ filename: name, subfolder: "pidkit", type: "temp" });
      const { strip } = node.widgets.find(w => w.name === "sigmas"), [known] = strip.ids;
      const css = document.querySelector("link[href$='pidkit.css']").href;
      const { remember } = await import(css.replace("pidkit.css", "runs.js"));
      const pictures = Array.from({ length: 50 }, (_, i) => ({
        id: i.toString(16).padStart(16, "0"), sigma: 0, suggestion: (i % 17) / 20,
        thumbnail: url(`${known}_192.jpg`), large: url(`${known}_4096.jpg`) }));
      node.setSize([900, 900]);
      remember(pictures);
      strip.received(pictures);
    }"""
    front_end.js(many, tuner.node)
    front_end.page.locator(".pidkit-card").nth(49).wait_for()
    front_end.show(tuner.node)
    front_end.screenshot("tuner_fifty", tuner.node)
    answer = """async () => {
      const times = [];
      for (const [i, range] of [...document.querySelectorAll(".pidkit-card input[type=range]")].entries()) {
        const start = performance.now();
        range.value = (i + 1) / 100;
        range.dispatchEvent(new Event("input", { bubbles: true }));
        range.dispatchEvent(new Event("change", { bubbles: true }));
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        times.push(Math.round(performance.now() - start));
      }
      return times.sort((a, b) => a - b);
    }"""
    times = front_end.js(answer)
    assert front_end.js("id => app.graph.getNodeById(id).widgets[1].value", tuner.node) == [
        (i + 1) / 100 for i in range(50)
    ]
    report = {"pictures": 50, "median_ms": times[25], "slowest_ms": times[-1]}
    (SCREENSHOTS / "responsiveness.json").write_text(json.dumps(report), encoding="utf-8")
    print(f"\n50 pictures, change to next frame: {report}")


def test_without_the_extension_the_graph_still_runs(front_end, root):
    tuner = Tuner(front_end, root, **DISABLED)
    assert front_end.page.locator(".pidkit").count() == 0
    tuner.set("PiDKitSigmaTuner", sigmas="0.1, 0.2, 0.3")
    done = front_end.history(front_end.run())
    shown = done["outputs"][str(tuner.node)]["pidkit_pictures"]
    assert [entry["sigma"] for entry in shown] == [0.1, 0.2, 0.3]
    front_end.show(tuner.node)
    front_end.screenshot("tuner_without_extension")


def test_nodes_of_others_are_left_alone(front_end):
    widgets = """() => Object.fromEntries(["KSampler", "LoadImage", "SaveImage", "PiDKitDecode", "Note"].map(type => {
      const node = LiteGraph.createNode(type);
      app.graph.add(node);
      return [type, { widgets: node.widgets?.map(w => [w.name, w.type]), inputs: node.inputs.map(i => i.name),
                      own: Object.keys(node).filter(k => k.startsWith("on")).sort(), size: [...node.size] }];
    }))"""
    front_end.open()
    ours = front_end.js(widgets)
    front_end.open(**DISABLED)
    assert front_end.js(widgets) == ours


def test_paint_is_kept_with_its_picture_and_undone_and_drawn(tuner, vue):
    page, fe = tuner.page, tuner.fe
    page.get_by_role("button", name="Paint", exact=True).click()
    fe.wait_for_images(".pidkit-stage img", 2)
    fe.show(tuner.node)

    def stroke() -> None:
        box = page.locator(".pidkit-paint").bounding_box()
        x, y = box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 30, y, steps=3)
        page.mouse.up()

    def painted() -> str:
        return tuner.sent()["painted"]

    assert painted() == ""
    stroke()
    first = painted()
    assert "@40" in first and first.count("=") == 1
    fe.screenshot(f"tuner_painted_{'vue' if vue else 'classic'}", tuner.node)
    page.keyboard.press("e")  # the eraser
    stroke()
    assert painted() == ""
    page.keyboard.press("Control+z")
    fe.wait("() => app.graph.nodes.some(n => n.widgets?.some(w => w.name === 'painted' && w.value))")
    assert painted() == first

    fe.show()
    drawn = fe.pictures(fe.run(), fe.id_of("SaveImage"))
    tuner.set("PiDKitSigmaTuner", painted="")
    plain = fe.pictures(fe.run(), fe.id_of("SaveImage"))
    assert [a.tobytes() != b.tobytes() for a, b in zip(drawn, plain, strict=True)] == [True, False, False]
