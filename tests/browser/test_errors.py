"""An error is read where it happened: its one line stands on the node, and goes with the next good run."""

import json
import re

import pytest

from support.front_end import WATCH_RUNS
from workflow_format import Graph, ui_format

FETCHED = "pid_1.5_flux1_1024_to_4096_4step_bf16.safetensors"
STATUS = "id => app.graph.getNodeById(id).widgets.find(w => w.name.includes('text-preview'))?.value ?? ''"
CONNECT = """([source, target]) => {
  app.graph.getNodeById(source).connect(0, app.graph.getNodeById(target), "latent");
}"""
SET = """([id, name, value]) => { app.graph.getNodeById(id).widgets.find(w => w.name === name).value = value; }"""
HEIGHT = "id => app.graph.getNodeById(id).size[1]"
# Lines that the box cuts off would have to be scrolled to.
CUT = "box => Math.max(box.scrollHeight - box.clientHeight, box.scrollWidth - box.clientWidth)"


class Small:
    """A picture of 16 x 16 through the bundled model, and an empty latent of Flux beside, which does not fit it."""

    def __init__(self, front_end, vue):
        self.fe, self.page = front_end, front_end.page
        graph = Graph("errors", "")
        model = graph.add("PiDKitLoader", 0, "a")
        picture = graph.add("EmptyImage", 0, "a", width=16, height=16, color=0x8040C0)
        packed = graph.add("PiDKitRGBLatent", 0, "a", image=picture[0])
        wrong = graph.add("EmptySD3LatentImage", 0, "a", width=64, height=64)
        decoded = graph.add("PiDKitDecode", 1, "a", model=model[0], latent=packed[0], steps=1, seed=int(vue))
        graph.add("SaveImage", 2, "a", images=decoded[0])
        self.loader, self.packed, self.wrong, self.decode = model.id, packed.id, wrong.id, decoded.id
        front_end.open(VueNodes_Enabled=vue)
        front_end.drop_text(json.dumps(ui_format(graph, front_end.comfy.object_info())), "errors.json")
        front_end.show()

    @property
    def line(self):
        return self.page.locator(".pidkit-error").filter(visible=True)

    def on_node(self, node: int) -> str:
        """The line, once it is there, whole and on this node."""
        self.line.wait_for()
        self.fe.settle()
        assert self.line.evaluate(CUT) <= 1
        line, box = self.line.bounding_box(), self.fe.node_box(node)
        assert line["x"] >= box["x"] and line["x"] + line["width"] <= box["x"] + box["width"] + 1
        assert line["y"] >= box["y"] and line["y"] + line["height"] <= box["y"] + box["height"] + 1
        return self.line.inner_text()

    def run_refused(self) -> None:
        with self.page.expect_response("**/api/prompt") as answer:
            self.page.get_by_test_id("queue-button").first.click()
        assert answer.value.status == 400


@pytest.fixture
def small(front_end, vue) -> Small:
    yield Small(front_end, vue)
    # what ComfyUI itself prints of a refused prompt
    known = ("400 for POST", "PromptExecutionError")
    front_end.errors[:] = [text for text in front_end.errors if not text.startswith(known)]


def test_an_error_of_a_run_stands_on_its_node(small, vue):
    fe, page = small.fe, small.page
    fe.run()
    fe.settle()
    height = fe.js(HEIGHT, small.decode)
    assert fe.js(STATUS, small.decode).startswith("64 x 64 in one frame")
    fe.js(CONNECT, [small.wrong, small.decode])
    with pytest.raises(RuntimeError, match="16 channels") as caught:
        fe.run()
    assert f"execution_error: {small.on_node(small.decode)}" == str(caught.value).strip()
    assert fe.js(STATUS, small.decode) == ""  # it was of the run before
    assert page.locator(".pidkit-toast").count() == 0  # the node is in sight
    fe.screenshot(f"error_of_a_run_{'vue' if vue else 'classic'}")

    page.get_by_text(re.compile("View details|See Errors")).click()
    page.get_by_text("ValueError: the latent has 16 channels").first.wait_for()

    fe.js(CONNECT, [small.packed, small.decode])
    fe.run()
    assert small.line.count() == 0
    assert fe.js(HEIGHT, small.decode) <= height
    fe.settle()
    fe.screenshot(f"error_gone_{'vue' if vue else 'classic'}")


def test_what_is_wrong_before_a_run_stands_on_its_node(small, vue):
    fe, page = small.fe, small.page
    fe.js(SET, [small.loader, "model_name", f"fetch: {FETCHED}"])
    small.run_refused()
    line = small.on_node(small.loader)
    assert line.startswith(f"missing: {FETCHED}")
    assert line.endswith("switch accept_licence on in this node and run again")
    fe.screenshot(f"error_before_a_run_{'vue' if vue else 'classic'}")
    address = small.line.get_by_role("link", name="https://huggingface.co/nvidia/PiD", exact=True)
    assert address.get_attribute("href") == "https://huggingface.co/nvidia/PiD"
    address.click(trial=True)  # nothing lies over it

    fe.js("() => { app.canvas.ds.offset[0] += 5000; app.canvas.setDirty(true, true); }")
    small.run_refused()
    toast = page.locator(".pidkit-toast")
    toast.wait_for()
    assert toast.inner_text().split() == f"PiD Loader {line}".split()
    fe.screenshot(f"error_out_of_sight_{'vue' if vue else 'classic'}")

    fe.show()
    fe.js(SET, [small.loader, "model_name", "pid_nano (bundled)"])
    fe.run()
    assert small.line.count() == 0
    toast.wait_for(state="detached")


def test_what_was_refused_stays_while_the_rest_runs(small, vue):
    """ComfyUI runs what it can of a workflow, and says so only in its panel."""
    fe = small.fe
    fe.js(SET, [small.loader, "model_name", f"fetch: {FETCHED}"])
    fe.js("""() => {
      const preview = LiteGraph.createNode("PreviewImage");
      app.graph.add(preview);
      app.graph.nodes.find(n => n.type === "EmptyImage").connect(0, preview, 0);
    }""")
    fe.js(WATCH_RUNS)
    with small.page.expect_response("**/api/prompt") as answer:
        small.page.get_by_test_id("queue-button").first.click()
    assert answer.value.ok
    fe.wait("id => window.endedRuns[id]", answer.value.json()["prompt_id"])
    assert small.on_node(small.loader).startswith(f"missing: {FETCHED}")
    fe.screenshot(f"error_beside_a_run_{'vue' if vue else 'classic'}")


def test_a_line_that_goes_leaves_the_nodes_of_another_tab(small):
    """Nodes 2.0 knows sizes by a node's id alone, and every workflow begins at 1."""
    fe = small.fe
    fe.js(SET, [small.loader, "model_name", f"fetch: {FETCHED}"])
    small.run_refused()
    small.line.wait_for()
    graph = Graph("another", "")
    for _ in range(small.loader):
        picture = graph.add("EmptyImage", 0, "a", width=16, height=16, width_=300, height_=200)
    graph.add("SaveImage", 1, "a", images=picture[0])
    fe.drop_text(json.dumps(ui_format(graph, fe.comfy.object_info())), "another.json")
    before = fe.boxes()[small.loader - 1]
    fe.run()
    assert fe.boxes()[small.loader - 1] == before


def test_what_a_node_was_doing_goes_with_its_error(small):
    """ "fetching ..." is no longer true, and both texts would reach over the next node."""
    fe = small.fe
    graph = Graph("fetching", "")
    file = graph.add("PiDKitDownload", 0, "a", file="ae.safetensors")
    graph.add("PreviewAny", 1, "a", source=file[0])
    fe.drop_text(json.dumps(ui_format(graph, fe.comfy.object_info())), "fetching.json")
    fe.show()
    with pytest.raises(RuntimeError, match="cannot be fetched"):
        fe.run()
    assert small.on_node(file.id).startswith("ae.safetensors cannot be fetched")
    assert fe.js(STATUS, file.id) == ""


def test_an_error_inside_a_subgraph_stands_on_both_nodes(small):
    fe = small.fe
    fe.js(CONNECT, [small.wrong, small.decode])
    outer = fe.js(
        "id => app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])).node.id",
        small.decode,
    )
    with pytest.raises(RuntimeError, match="16 channels"):
        fe.run()
    assert small.on_node(outer).startswith("PiD Decode: the latent has 16 channels")


def test_a_vae_of_latents_on_pids_pixels(front_end, vue):
    """ComfyUI's own VAE Decode fails, and cannot know why."""
    graph = Graph("errors", "")
    model = graph.add("PiDKitLoader", 0, "a")
    picture = graph.add("EmptyImage", 0, "a", width=16, height=16, color=0x8040C0)
    packed = graph.add("PiDKitRGBLatent", 0, "a", image=picture[0])
    pid = graph.add("PiDKitConditioning", 1, "a", latent=packed[0], model=model[0])
    wires = {"positive": pid[0], "negative": pid[1], "latent_image": pid[2], "model": model[0]}
    steps = {"steps": 1, "cfg": 1.0, "sampler_name": "lcm", "scheduler": "simple"}
    drawn = graph.add("KSampler", 2, "a", **wires, **steps)
    vae = graph.add("TestVAE", 2, "a")
    image = graph.add("VAEDecode", 3, "a", samples=drawn[0], vae=vae[0])
    graph.add("SaveImage", 4, "a", images=image[0])
    front_end.open(VueNodes_Enabled=vue)
    front_end.drop_text(json.dumps(ui_format(graph, front_end.comfy.object_info())), "errors.json")
    front_end.show()
    with pytest.raises(RuntimeError, match="to have 16 channels, but got 3"):
        front_end.run()
    front_end.page.get_by_role("alert").filter(has_text="connect Pixel-Space VAE to vae").wait_for()
    front_end.screenshot(f"error_of_another_node_{'vue' if vue else 'classic'}")
