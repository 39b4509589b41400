"""Subgraph blueprints: nodes that ComfyUI offers in its node search as one, from the same kind of description."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from workflow_format import Graph, Node, Out, Promoted, pack_version, placed
from workflow_graphs import FLUX_PID, text_encoder

CATEGORY = "PiD"
INPUT, OUTPUT = -10, -20  # the front end's ids of a subgraph's two ends
ENDS = Node(INPUT, "", 0, "", {})


@dataclass
class Blueprint:
    """name: of the file, and what users search for. inputs: in the order in which they appear on the node."""

    name: str
    about: str
    graph: Graph
    inputs: list[Promoted] = field(default_factory=list)
    outputs: list[tuple[str, Out]] = field(default_factory=list)

    def take(self, name: str, value=None) -> Promoted:
        """A new input of the blueprint, to be given to one or more nodes of it."""
        self.inputs.append(Promoted(ENDS, len(self.inputs), name, value))
        return self.inputs[-1]


def photo_to_4k() -> Blueprint:
    blueprint = Blueprint(
        "Photo to 4K (PiD)",
        "Makes a picture larger, in its own shape, with PiD Upscale. The bundled model needs no download; NVIDIA's "
        "draws more detail and is fetched once its licence is accepted.",
        Graph("photo_to_4k", ""),
    )
    names = ("image", "model_set", "target", "strength", "text", "accept_licence")
    values = {"target": "4K"}
    inputs = {name: blueprint.take(name, values.get(name)) for name in names}
    image = blueprint.graph.add("PiDKitUpscale", 0, CATEGORY, width_=380, **inputs)
    blueprint.outputs.append(("image", image[0]))
    return blueprint


def latent_to_4k() -> Blueprint:
    blueprint = Blueprint(
        "Latent to 4K (PiD)",
        "Draws a generator's latent (Flux, Z-Image and others) as a picture four times its size, with NVIDIA's PiD. "
        "Model and text encoder are fetched once their licences are accepted.",
        Graph("latent_to_4k", ""),
    )
    graph, take = blueprint.graph, blueprint.take
    latent, text = take("latent"), take("text")
    model_name = take("model_name", f"fetch: {FLUX_PID}")
    licence = take("accept_licence")
    sigma, seed = take("degrade_sigma"), take("seed")
    model = graph.add("PiDKitLoader", 0, CATEGORY, model_name=model_name, accept_licence=licence, width_=420)
    clip = text_encoder(graph, 0, CATEGORY, accept_licence=licence)
    image = graph.add(
        "PiDKitDecode", 1, CATEGORY,
        model=model[0], latent=latent, clip=clip, text=text, degrade_sigma=sigma, seed=seed,
    )  # fmt: skip
    blueprint.outputs.append(("image", image[0]))
    return blueprint


BLUEPRINTS = (photo_to_4k, latent_to_4k)


def blueprint_format(blueprint: Blueprint, object_info: dict) -> dict:
    """A file of `subgraphs/`: one node, and the subgraph it stands for."""
    graph = blueprint.graph
    nodes, links = placed(graph, object_info, every_input=True)
    ids = {key: str(uuid.uuid5(uuid.NAMESPACE_URL, f"pidkit/{graph.name}/{key}")) for key in ("subgraph", "file")}
    for i, (_, out) in enumerate(blueprint.outputs):
        kind = object_info[out.node.class_type]["output"][out.index]
        links.append([len(links) + 1, out.node.id, out.index, OUTPUT, i, kind])
        nodes[out.node.id - 1]["outputs"][out.index]["links"].append(len(links))
    right = max(node["pos"][0] + node["size"][0] for node in nodes)
    inputs, ports = [], []
    for i, widget in enumerate(blueprint.inputs):
        wires = [link for link in links if link[1:3] == [INPUT, i]]
        slot = nodes[wires[0][3] - 1]["inputs"][wires[0][4]]
        inputs.append(_port(graph, widget.name, slot["type"], [link[0] for link in wires], -200, 40 * i))
        ports.append({"name": widget.name, "type": slot["type"], "link": None})
        if "widget" in slot:
            ports[-1]["widget"] = {"name": widget.name}
    widgets = [
        [str(wire[3]), nodes[wire[3] - 1]["inputs"][wire[4]]["name"]]
        for i, port in enumerate(ports)
        if "widget" in port
        for wire in [next(link for link in links if link[1:3] == [INPUT, i])]
    ]
    outputs = [
        _port(graph, name, kind, [number], right + 120, 40 * slot)
        for number, _, _, target, slot, kind in links
        if target == OUTPUT
        for name in [blueprint.outputs[slot][0]]
    ]
    subgraph = {
        "id": ids["subgraph"],
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": blueprint.name,
        "category": CATEGORY,
        "description": blueprint.about,
        "inputNode": {"id": INPUT, "bounding": [-240, -30, 140, 40 * len(inputs) + 60]},
        "outputNode": {"id": OUTPUT, "bounding": [right + 80, -30, 140, 100]},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": nodes,
        "groups": [],
        "links": [
            dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
            for link in links
        ],
        "extra": {},
    }
    node = {
        "id": 1,
        "type": ids["subgraph"],
        "pos": [0, 0],
        "size": [360, 320],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": ports,
        "outputs": [{"name": port["name"], "type": port["type"], "links": []} for port in outputs],
        "title": blueprint.name,
        "properties": {"proxyWidgets": widgets, "cnr_id": "pidkit", "ver": pack_version()},
        "widgets_values": [],
    }
    return {
        "id": ids["file"],
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [subgraph]},
        "config": {},
        "extra": {"BlueprintDescription": blueprint.about},
        "version": 0.4,
    }


def _port(graph: Graph, name: str, kind: str, links: list[int], x: float, y: float) -> dict:
    key = uuid.uuid5(uuid.NAMESPACE_URL, f"pidkit/{graph.name}/{x < 0}/{name}")
    return {"id": str(key), "name": name, "type": kind, "linkIds": links, "localized_name": name, "pos": [x, y]}
