"""PiD Sigma Tuner's example workflow in the front end, small enough to run many times."""

import json

from PIL import Image

import workflow_graphs
from workflow_format import ui_format


class Tuner:
    """The example workflow with small photos, a step and a sweep of the second picture, as a user sees it."""

    def __init__(self, front_end, root, **settings):
        self.page, self.fe = front_end.page, front_end
        graph = workflow_graphs.pid_tune_per_image()
        nodes = {node.class_type: node for node in graph.nodes}
        for node in graph.nodes:
            if node.class_type == "LoadImage":
                name = node.inputs["image"]
                node.inputs["image"] = f"small_{name}"
                with Image.open(root / "example_workflows" / name) as photo:
                    photo.convert("RGB").crop((72, 54, 120, 90)).save(front_end.comfy.input / f"small_{name}")
        decode = nodes["PiDKitDecode"]
        decode.inputs["steps"] = 1
        wires = {name: decode.inputs[name] for name in ("model", "latent", "sigma_list", "latent_noise")}
        graph.add("PiDKitSigmaSweep", 4, "Sweep", picture=2, sigmas="0, 0.3", steps=1, height_=460, **wires)
        front_end.open(**settings)
        front_end.drop_text(json.dumps(ui_format(graph, front_end.comfy.object_info())), "tuner.json")
        self.node = self.fe.id_of("PiDKitSigmaTuner")

    def set(self, node_type: str, **values) -> None:
        self.fe.js(
            """([type, values]) => {
              const node = app.graph.nodes.find(n => n.type === type);
              for (const [name, value] of Object.entries(values))
                node.widgets.find(w => w.name === name).value = value;
            }""",
            [node_type, values],
        )

    def load(self) -> None:
        self.fe.show(self.node)
        self.page.get_by_role("button", name="Load pictures").click()
        self.page.locator(".pidkit-card").nth(2).wait_for()
        self.fe.wait_for_images(".pidkit-thumb img", 3)

    def slider(self, number: int):
        return self.page.get_by_role("slider", name=f"degrade_sigma of picture {number}")

    @property
    def sigmas(self) -> list[float]:
        """What the sliders show; the node's value and the value for the server are the same."""
        sliders = [float(self.slider(number).input_value()) for number in (1, 2, 3)]
        stored = self.fe.js("id => app.graph.getNodeById(id).widgets.find(w => w.name === 'sigmas').value", self.node)
        assert sliders == stored == self.sent()["sigmas"]["__value__"]
        return sliders

    def sent(self) -> dict:
        """The tuner's inputs as the front end would send them."""
        return self.fe.js("async id => (await app.graphToPrompt()).output[id].inputs", self.node)
