"""What PiD Sigma Tuner shows of runs: found again wherever its pictures are, close up, and any two strengths."""

import pytest

from support.tuner_page import Tuner

SIGMAS = "id => app.canvas.graph.getNodeById(id).widgets.find(w => w.name === 'sigmas').value"
# Where both pictures lie in the stage, and how many screen pixels one of theirs takes.
VIEW = """() => {
  const [left, right] = document.querySelectorAll(".pidkit-stage img");
  const { x, y, width } = right.getBoundingClientRect();
  const same = ["left", "top", "width", "height"].every(side => left.style[side] === right.style[side]);
  return { x, y, same, zoom: width * devicePixelRatio / right.naturalWidth };
}"""


@pytest.fixture
def tuner(front_end, root, vue) -> Tuner:
    made = Tuner(front_end, root, VueNodes_Enabled=vue)
    made.load()
    return made


def run_twice(tuner) -> list[str]:
    """Runs with 0 everywhere, then with 0.3 for the second picture, which is chosen; the addresses of its results."""
    fe, page = tuner.fe, tuner.page
    save = fe.id_of("SaveImage")
    page.locator(".pidkit-thumb").nth(1).click()
    urls = [fe.picture_url(fe.run(), save, 1)]
    fe.show(tuner.node)
    page.get_by_role("button", name="Repair").click()
    urls.append(fe.picture_url(fe.run(), save, 1))
    fe.show(tuner.node)
    shows(tuner, urls[1])
    return urls


def shows(tuner, url: str, side: str = "right") -> None:
    """Waits until one side of the comparison shows this file."""
    tuner.fe.wait(
        """([url, side]) => [...document.querySelectorAll(`.pidkit-layer-${side} img`)]
          .some(img => img.getAttribute("src") === url && img.naturalWidth)""",
        [url, side],
    )


def offered(tuner, side: str) -> list[str]:
    return tuner.page.get_by_role("combobox", name=f"{side} of the line").locator("option").all_inner_texts()


def test_found_again_in_another_tab_after_undo_in_a_copy_and_after_a_reload(front_end, root, vue):
    keeps_tabs = {"VueNodes_Enabled": vue, "Workflow_Persist": True}
    front_end.open_anew(**keeps_tabs)  # with nothing kept yet
    tuner = Tuner(front_end, root, **keeps_tabs)
    tuner.load()
    fe, page = tuner.fe, tuner.page
    suggestions = page.locator(".pidkit-take:visible").all_inner_texts()
    assert len(suggestions) == 3
    urls = run_twice(tuner)
    options = offered(tuner, "Right")

    def all_there():
        fe.show(tuner.node)
        fe.wait_for_images(".pidkit-thumb img", 3)
        fe.wait("() => [...document.querySelectorAll('.pidkit-take')].filter(b => b.checkVisibility()).length === 3")
        assert page.locator(".pidkit-take").all_inner_texts() == suggestions
        page.locator(".pidkit-thumb").nth(1).click()
        shows(tuner, urls[1])
        assert offered(tuner, "Right") == options
        fe.wait_for_images(".pidkit-tile img", 2)

    name = fe.tab()
    fe.js("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    fe.wait("() => !document.querySelector('.pidkit')")
    fe.go_to(name)
    page.locator(".pidkit-card").nth(2).wait_for()
    all_there()

    page.locator(".pidkit-thumb").nth(2).focus()
    page.keyboard.press("3")
    assert fe.js(SIGMAS, tuner.node) == [0, 0.3, 0.6]
    page.keyboard.press("Control+z")
    fe.wait(f"id => ({SIGMAS})(id).join() === '0,0.3,0'", tuner.node)
    all_there()

    page.locator(".pidkit-thumb").nth(2).focus()
    page.keyboard.press("2")
    fe.wait("() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]).includes('[0,0.3,0.3]')")
    page.reload()
    fe.loaded()
    fe.wait("() => document.querySelectorAll('.pidkit-card').length === 3")
    assert fe.js(SIGMAS, tuner.node) == [0, 0.3, 0.3]
    all_there()

    fe.js("id => { app.canvas.deselectAll(); app.canvas.select(app.graph.getNodeById(id)); }", tuner.node)
    fe.js("() => app.canvas.copyToClipboard()")
    fe.js("() => app.canvas.pasteFromClipboard()")
    copy = fe.id_of("PiDKitSigmaTuner", 1)
    assert fe.js(SIGMAS, copy) == [0, 0.3, 0.3]
    strip = "app.graph.getNodeById(id).widgets.find(w => w.name === 'sigmas').strip"
    fe.js(f"id => {strip}.choose(1)", copy)
    assert fe.js(f"id => {strip}.compare.choices.map(c => c.label)", copy) == options


def test_what_the_node_says_stands_below_the_comparison(tuner, root, vue):
    """Also where the pictures of a workflow just opened have results already, and nothing moves the view."""
    fe = tuner.fe
    fe.run()
    opened = Tuner(fe, root, VueNodes_Enabled=vue)
    # with the inputs of before, ComfyUI would hand on what it kept: the node would not run, and say nothing
    opened.set("PiDKitSigmaTuner", default_sigma=0.25)
    opened.load()
    fe.wait_for_images(".pidkit-stage img", 2)
    fe.wait(
        """() => {
          const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (texts.nextNode() && !texts.currentNode.data.startsWith("3 pictures"));
          const { bottom } = document.querySelector(".pidkit-stage").getBoundingClientRect();
          return texts.currentNode.parentElement.getBoundingClientRect().top >= bottom;
        }"""
    )
    fe.screenshot(f"compare_opened_{'vue' if vue else 'classic'}")


def test_a_run_that_ends_while_another_tab_is_open(front_end, root):
    tuner = Tuner(front_end, root)
    fe = front_end
    fe.show(tuner.node)
    name = fe.tab()
    fe.js("""async () => {
      await app.queuePrompt(0, 1);
      await app.extensionManager.command.execute("Comfy.NewBlankWorkflow");
    }""")
    fe.wait("name => app.extensionManager.workflow.activeWorkflow.filename !== name", name)
    fe.wait(
        "async () => { const q = await (await app.api.fetchApi('/queue')).json();"
        " return !q.queue_running.length && !q.queue_pending.length; }"
    )
    fe.go_to(name)
    tuner.page.locator(".pidkit-card").nth(2).wait_for()
    fe.show(tuner.node)
    fe.wait_for_images(".pidkit-stage img", 2)
    assert fe.js(SIGMAS, tuner.node) == [0, 0, 0]


@pytest.mark.parametrize(
    "inside",
    [["PiDKitSigmaTuner"], ["PiDKitDecode", "SaveImage"], ["PiDKitSigmaTuner", "PiDKitDecode", "SaveImage"]],
    ids=["tuner", "results", "both"],
)
def test_in_a_subgraph(front_end, root, vue, inside):
    tuner = Tuner(front_end, root, VueNodes_Enabled=vue)
    fe, page = tuner.fe, tuner.page
    save, sweep = fe.id_of("SaveImage"), fe.id_of("PiDKitSigmaSweep")
    fe.js(
        """types => {
          app.canvas.deselectAll();
          app.canvas.selectItems(app.graph.nodes.filter(n => types.includes(n.type)));
        }""",
        inside,
    )
    fe.js("() => app.extensionManager.command.execute('Comfy.Graph.ConvertToSubgraph')")
    fe.wait("() => app.graph.nodes.some(n => n.subgraph)")
    outer = fe.js("() => app.graph.nodes.find(n => n.subgraph).id")

    def enter(types):
        """Opens the graph where these nodes are."""
        own = any(name in inside for name in types)
        fe.js(
            """([id, own]) => app.canvas.setGraph(own ? app.rootGraph.getNodeById(id).subgraph : app.rootGraph)""",
            [outer, own],
        )
        fe.settle()

    enter(["PiDKitSigmaTuner"])
    tuner.node = fe.id_of("PiDKitSigmaTuner")
    tuner.load()
    page.locator(".pidkit-thumb").nth(1).click()
    done = fe.history(fe.run())
    (images,) = [out["images"] for node, out in done["outputs"].items() if node in (str(save), f"{outer}:{save}")]
    url = fe.js("image => app.api.apiURL('/view?' + new URLSearchParams(image))", images[1])
    fe.show(tuner.node)
    shows(tuner, url)

    enter(["PiDKitSigmaSweep"])
    fe.show(sweep)
    fe.wait_for_images(".pidkit-tile img", 2)
    page.locator(".pidkit-tile").nth(1).click()
    enter(["PiDKitSigmaTuner"])
    assert fe.js(SIGMAS, tuner.node) == [0, 0.3, 0]


def test_zoom(tuner, vue):
    fe, page = tuner.fe, tuner.page
    run_twice(tuner)
    fe.wait_for_images(".pidkit-stage img", 2)
    stage = page.locator(".pidkit-stage")
    box = stage.bounding_box()
    whole = fe.js(VIEW)
    assert whole["same"]

    page.get_by_role("button", name="100 %").click()
    assert fe.js(VIEW)["zoom"] == pytest.approx(1, rel=0.01)
    page.get_by_role("button", name="300 %").click()
    near = fe.js(VIEW)
    assert near["zoom"] == pytest.approx(3, rel=0.01) and near["same"]
    assert page.locator(".pidkit-zoom").inner_text() == "300 %"
    fe.screenshot(f"compare_300_{'vue' if vue else 'classic'}", tuner.node)

    for _ in range(4):
        page.get_by_role("button", name="+", exact=True).click()
    near = fe.js(VIEW)
    assert near["zoom"] == pytest.approx(3 * 1.25**4, rel=0.01)

    # a drag far from the line moves both pictures, one on the line moves the line
    x, y = box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 20, steps=3)
    page.mouse.up()
    moved = fe.js(VIEW)
    assert (moved["x"] - near["x"], moved["y"] - near["y"]) == (pytest.approx(-40, abs=2), pytest.approx(-20, abs=2))
    assert moved["same"]
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, y, steps=3)
    page.mouse.up()
    at = "() => parseFloat(document.querySelector('.pidkit-stage').style.getPropertyValue('--pidkit-at'))"
    assert fe.js(at) == pytest.approx(25, abs=1)
    assert fe.js(VIEW)["x"] == moved["x"]

    # the wheel keeps the point under it
    scale = fe.js("() => app.canvas.ds.scale")
    page.mouse.move(x, y)
    page.mouse.wheel(0, 100)
    fe.wait(f"zoom => ({VIEW})().zoom < zoom - 0.1", moved["zoom"])
    out = fe.js(VIEW)
    assert (x - out["x"]) / out["zoom"] == pytest.approx((x - moved["x"]) / moved["zoom"], rel=0.02)
    assert fe.js("() => app.canvas.ds.scale") == scale

    for key, zoom in (("3", 3), ("1", 1), ("0", whole["zoom"]), ("+", whole["zoom"] * 1.25), ("-", whole["zoom"])):
        page.keyboard.press(key)
        assert fe.js(VIEW)["zoom"] == pytest.approx(zoom, rel=0.01)
    page.keyboard.press("3")
    before = fe.js(VIEW)
    page.keyboard.press("Shift+ArrowLeft")
    assert fe.js(VIEW)["x"] > before["x"]
    page.keyboard.press("Home")
    assert fe.js(at) == 0
    page.keyboard.press("0")

    steps = [zoom for zoom in (1, 3) if zoom > whole["zoom"]]
    for zoom in [*steps, whole["zoom"]]:
        fe.double_click(x, y)
        assert fe.js(VIEW)["zoom"] == pytest.approx(zoom, rel=0.01)


@pytest.mark.nodes_2
def test_in_app_mode(front_end, root):
    tuner = Tuner(front_end, root, VueNodes_Enabled=True)
    tuner.load()
    fe, page = tuner.fe, tuner.page
    save = fe.id_of("SaveImage")
    url = fe.picture_url(fe.run(), save, 1)
    page.add_locator_handler(page.get_by_role("button", name="Skip", exact=True), lambda skip: skip.click())
    data = {"inputs": [[tuner.node, "sigmas"]], "outputs": [save]}
    fe.js("data => { app.rootGraph.extra.linearData = data; }", data)
    fe.drop_text(fe.js("() => JSON.stringify(app.graph.serialize())"), "app.json")
    fe.js("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
    page.locator(".lg-node .pidkit-stage").wait_for(state="detached")
    page.locator(".pidkit-thumb").nth(1).click()
    shows(tuner, url)
    page.get_by_role("button", name="300 %").click()
    assert fe.js(VIEW)["zoom"] == pytest.approx(3, rel=0.01)
    page.locator(".pidkit-stage").click()
    page.keyboard.press("1")
    assert fe.js(VIEW)["zoom"] == pytest.approx(1, rel=0.01)
    page.mouse.wheel(0, -100)
    fe.wait(f"() => ({VIEW})().zoom > 1.1")
    left = page.get_by_role("combobox", name="Left of the line")
    left.focus()
    page.keyboard.press("End")
    assert page.locator(".pidkit-tag").nth(0).inner_text() == offered(tuner, "Left")[-1]
    page.locator(".pidkit-thumb").nth(1).focus()
    page.keyboard.press("2")
    assert page.get_by_role("slider", name="degrade_sigma of picture 2").input_value() == "0.3"
    fe.screenshot("compare_app")
    fe.js("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
    page.locator(".lg-node .pidkit-stage").wait_for()


def test_two_strengths_beside_each_other(tuner, vue):
    fe, page = tuner.fe, tuner.page
    first, second = run_twice(tuner)
    assert offered(tuner, "Left")[:3] == ["before", "strength 0.30", "strength 0.00"]
    left, right = (page.get_by_role("combobox", name=f"{side} of the line") for side in ("Left", "Right"))
    left.select_option(label="strength 0.00")
    shows(tuner, first, "left")
    shows(tuner, second)
    tags = page.locator(".pidkit-tag").all_inner_texts()
    assert tags == ["strength 0.00", "strength 0.30"]
    fe.screenshot(f"compare_two_{'vue' if vue else 'classic'}", tuner.node)

    sweep = fe.id_of("PiDKitSigmaSweep")
    tiles = fe.js(
        """id => app.nodeOutputs[id].pidkit_tiles.map(t => app.api.apiURL('/view?' + new URLSearchParams(t.large)))""",
        sweep,
    )
    left.focus()
    right.select_option(label="strength 0.30 · Sweep")
    shows(tuner, tiles[1])

    # another picture has no sweep; it shows what it has
    page.locator(".pidkit-thumb").nth(0).click()
    assert page.locator(".pidkit-tag").nth(1).inner_text().startswith("strength 0.00")
    page.locator(".pidkit-thumb").nth(1).click()
    shows(tuner, tiles[1])

    # a third run is offered without a reload, and what was chosen stays
    page.get_by_role("button", name="Rebuild").click()
    fe.run()
    fe.show(tuner.node)
    # by its name: how many there are says nothing, where a test before kept a result of the same photo
    fe.wait(
        """name => [...document.querySelectorAll(".pidkit-bar select")[1].options].some(o => o.label === name)""",
        "strength 0.60",
    )
    shows(tuner, tiles[1])
    shows(tuner, first, "left")
