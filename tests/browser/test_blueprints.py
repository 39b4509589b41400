"""The pack's subgraph blueprints: found by search, put on the canvas, connected and run."""

import numpy as np
import pytest

import comfy_env
from pid_core.hub.catalogue import get_file
from support.tiny import save_tiny
from support.tiny_gemma import save_encoder

BLUEPRINTS = sorted(file.stem for file in (comfy_env.ROOT / "subgraphs").glob("*.json"))
SDXL, GEMMA = get_file("pid_sdxl_1024_to_4096_4step_bf16.safetensors"), get_file("gemma_2_2b_it_elm_bf16.safetensors")
# The blueprint between a node that makes what it takes and SaveImage; values: of its widgets.
CONNECT = """([source, settings, values]) => {
  const add = type => { const node = LiteGraph.createNode(type); app.graph.add(node); return node; };
  const set = (node, name, value) => { node.widgets.find(w => w.name === name).value = value; };
  const [blueprint] = app.graph.nodes, from = add(source);
  for (const [name, value] of Object.entries(settings)) set(from, name, value);
  for (const [name, value] of Object.entries(values)) set(blueprint, name, value);
  from.connect(0, blueprint, 0);
  blueprint.connect(0, add("SaveImage"), 0);
}"""


def test_the_server_lists_them(comfy):
    listed = {entry["name"]: entry["info"] for entry in comfy.get("/global_subgraphs").values()}
    for name in BLUEPRINTS:
        assert listed[name]["node_pack"] == "custom_nodes.ComfyUI-PiDKit"


def insert(front_end, name, vue):
    """From the node search, as a user does: a double click on the canvas, the name, Enter."""
    front_end.open(VueNodes_Enabled=vue)
    page = front_end.page
    front_end.double_click(500, 300)
    page.locator("input:focus").wait_for()  # what is typed before goes to the canvas
    page.keyboard.type(name)
    page.locator("[data-testid=result-item], [role=option]").filter(has_text=name).first.wait_for()
    front_end.screenshot(f"search_{name.split()[0]}")
    page.keyboard.press("Enter")
    front_end.wait("() => app.graph.nodes.length === 1")
    front_end.wait(
        """() => !document.querySelector(".p-dialog-mask")
          && document.elementFromPoint(1100, 500) === document.querySelector("#graph-canvas")"""
    )
    page.mouse.move(1100, 480)
    page.mouse.click(1100, 500)  # newer front ends ask where
    front_end.wait("() => app.canvas.state?.ghostNodeId == null")
    front_end.settle()


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_found_by_search(front_end, name, vue):
    insert(front_end, name, vue)
    assert front_end.js("() => app.graph.nodes[0].isSubgraphNode()")
    front_end.screenshot(f"blueprint_{name.split()[0]}_{'vue' if vue else 'classic'}")


def test_photo_to_4k_runs(front_end, comfy, vue):
    """What the node inside says is read on the blueprint, and where that is open on the node itself."""
    insert(front_end, "Photo to 4K (PiD)", vue)
    photo = np.random.default_rng(int(vue)).integers(0, 256, (24, 32, 3), np.uint8)  # not one that ComfyUI kept
    front_end.js(CONNECT, ["LoadImage", {"image": comfy.upload(photo)}, {"target": "factor"}])
    front_end.show()
    (picture,) = front_end.pictures(front_end.run(), front_end.id_of("SaveImage"))
    assert picture.size == (128, 96)
    front_end.wait_for_pictures("SaveImage")
    front_end.wait_for_text("32 x 24 picture, PiD makes it 128 x 96")
    # its inputs and one text; v0.25.0 draws both without widgets of the subgraph's own
    assert front_end.js("() => app.graph.nodes.find(n => n.subgraph).widgets?.length ?? 0") <= 6
    front_end.screenshot(f"blueprint_run_{'vue' if vue else 'classic'}")

    front_end.js("() => app.canvas.setGraph(app.graph.nodes.find(n => n.subgraph).subgraph)")
    front_end.show()
    front_end.js("() => { app.canvas.graph.nodes[0].widgets.find(w => w.name === 'seed').value = 1; }")
    front_end.run()
    front_end.wait_for_text("32 x 24 picture, PiD makes it 128 x 96")
    front_end.screenshot(f"blueprint_open_{'vue' if vue else 'classic'}")


def test_latent_to_4k_fetches_and_runs(front_end, comfy, tmp_path):
    """With tiny files of the real names, from a hub on this machine."""
    comfy.hub.files[SDXL.repo, SDXL.path] = save_tiny(tmp_path / "pid", "sdxl").read_bytes()
    comfy.hub.files[GEMMA.repo, GEMMA.path] = save_encoder(tmp_path / "gemma").read_bytes()
    comfy.get("/pidkit_tests/any_files", on="yes")
    insert(front_end, "Latent to 4K (PiD)", False)
    values = {"model_name": f"fetch: {SDXL.name}", "accept_licence": True, "text": "A lighthouse."}
    front_end.js(CONNECT, ["EmptyLatentImage", {"width": 64, "height": 64}, values])
    try:
        (picture,) = front_end.pictures(front_end.run(), front_end.id_of("SaveImage"))
    finally:
        comfy.get("/pidkit_tests/any_files", on="no")
        for file in (SDXL, GEMMA):
            del comfy.hub.files[file.repo, file.path]
            (comfy.models / file.folder / file.name).unlink(missing_ok=True)
        (comfy.folder / "user" / "__pidkit" / "licences.json").unlink(missing_ok=True)
    assert picture.size == (256, 256)
