"""One description of a workflow, written in ComfyUI's two formats: UI (to drag in) and API (to queue).

A node's inputs, their order and defaults come from ComfyUI itself (`object_info`), so that the two cannot differ.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field

from comfy_env import ROOT
from workflow_models import model_entry

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
GAP, TITLE, ROW, WIDTH = 60, 34, 26, 320  # of the canvas, in its own units
STATUS = 110  # what a node of ours grows by when it writes about itself
# Of a window of 1600 x 1000: what the front end leaves free, and how small the nodes may be drawn there.
VIEW, VIEW_AT, SMALLEST = (1480, 830), (90, 115), 0.6
AUTOGROW = "COMFY_AUTOGROW_V3"
VIEW_ONLY = "IMAGECOMPARE"  # where the front end draws a result: nothing that it saves, and this is what it sends
NOTHING_TO_VIEW = {"__value__": ["", ""]}
NOTE_WIDTH = 480
NOTE = "MarkdownNote"  # drawn by the front end; no node of the server's
CORE = {"cnr_id": "comfy-core", "ver": "0.25.0"}  # the oldest ComfyUI they run in
COLOURS = ("#3f789e", "#8a6d1d", "#3f6e46")


@dataclass(frozen=True)
class Out:
    """One output of a node, to be given as another's input."""

    node: Node
    index: int


@dataclass
class Node:
    """class_type with its inputs: a value for a widget, an Out for a link. column: where it stands, from the left."""

    id: int
    class_type: str
    column: int
    group: str
    inputs: dict
    title: str | None = None
    width: int = WIDTH
    height: int | None = None

    def __getitem__(self, index: int) -> Out:
        return Out(self, index)


@dataclass(frozen=True)
class Promoted(Out):
    """An input of a blueprint, to be given as a node's input; value: what its widget shows, None for the default."""

    name: str
    value: object = None


@dataclass(frozen=True)
class App:
    """What ComfyUI's App mode shows of a workflow: widgets, each with a line under it, and whose pictures come out."""

    inputs: tuple[tuple[Node, str, str], ...]
    outputs: tuple[Node, ...]


@dataclass
class Graph:
    """A workflow under the name of its files; note: markdown, shown left of the nodes."""

    name: str
    note: str
    nodes: list[Node] = field(default_factory=list)
    app: App | None = None

    def add(self, class_type: str, column: int, group: str, /, *, title: str | None = None, **inputs) -> Node:
        size = {key: inputs.pop(key) for key in ("width_", "height_") if key in inputs}
        node = Node(len(self.nodes) + 1, class_type, column, group, inputs, title)
        node.width, node.height = size.get("width_", WIDTH), size.get("height_")
        self.nodes.append(node)
        return node


def api_format(graph: Graph, object_info: dict) -> dict:
    """Node id -> class_type, inputs, title: every widget with its value, every link as [id, output]."""
    out = {}
    for node in graph.nodes:
        info = object_info[node.class_type]
        inputs = {}
        for name, kind, settings in _definitions(info, node):
            value = node.inputs.get(name)
            if isinstance(value, Out):
                inputs[name] = [str(value.node.id), value.index]
            elif _is_widget(kind, settings):
                inputs[name] = _widget_value(node, name, kind, settings)
        required = info["input"].get("required", {})
        inputs |= {name: NOTHING_TO_VIEW for name, (kind, *_) in required.items() if kind == VIEW_ONLY}
        unknown = node.inputs.keys() - {name for name, *_ in _definitions(info, node)}
        if unknown:
            raise ValueError(f"{graph.name}: {node.class_type} has no input {', '.join(sorted(unknown))}")
        title = node.title or info.get("display_name") or node.class_type
        out[str(node.id)] = {"class_type": node.class_type, "inputs": inputs, "_meta": {"title": title}}
    return out


def ui_format(graph: Graph, object_info: dict, *, opens_as_app: bool = False) -> dict:
    """What the front end saves: nodes with places and widget values, links, groups, and the note."""
    nodes, links = placed(graph, object_info)
    groups = _groups(graph.nodes, nodes, object_info)
    note = _note(len(nodes) + 1, graph.note, min(group["bounding"][1] for group in groups))
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"pidkit/{graph.name}")),
        "revision": 0,
        "last_node_id": note["id"],
        "last_link_id": len(links),
        "nodes": [*nodes, note],
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {"ds": _view([*nodes, note], groups), "pidkit_example": True, **_app(graph.app, opens_as_app)},
        "version": 0.4,
    }


def placed(graph: Graph, object_info: dict, *, every_input: bool = False) -> tuple[list[dict], list[list]]:
    """Nodes as the front end saves them, in their places and connected, and the links.

    every_input: also those of unconnected widgets, and widgets last. Older front ends count on it inside subgraphs.
    """
    links: list[list] = []
    nodes = [_ui_node(node, object_info, links, every_input) for node in graph.nodes]
    _place(graph.nodes, nodes, object_info)
    for link in links:
        if link[1] > 0:
            nodes[link[1] - 1]["outputs"][link[2]]["links"].append(link[0])
    for order, node in enumerate(_by_dependency(graph.nodes)):
        nodes[node.id - 1]["order"] = order
    return nodes, links


def _app(app: App | None, opens: bool) -> dict:
    if app is None:
        return {}
    inputs = [[node.id, widget, {"description": about}] for node, widget, about in app.inputs]
    data = {"inputs": inputs, "outputs": [node.id for node in app.outputs]}
    return {"linearData": data} | ({"linearMode": True} if opens else {})


def _definitions(info: dict, node: Node) -> list[tuple[str, object, dict]]:
    """(name, type, settings) of every input, required ones first."""
    found = []
    for kind in ("required", "optional"):
        for name, entry in info["input"].get(kind, {}).items():
            settings = entry[1] if len(entry) > 1 else {}
            if entry[0] == AUTOGROW:
                found += _growing(name, settings["template"], node)
            elif entry[0] != VIEW_ONLY:
                found.append((name, entry[0], settings))
    return found


def _growing(name: str, template: dict, node: Node) -> list[tuple[str, object, dict]]:
    """The inputs of which there is always one more than wires: those given, and an empty one."""
    ((kind, *_),) = template["input"]["required"].values()
    wires = sum(key.startswith(f"{name}.") for key in node.inputs)
    return [(f"{name}.{template['prefix']}{i}", kind, {"grows_from": template["min"]}) for i in range(wires + 1)]


def _is_widget(kind, settings: dict) -> bool:
    return (isinstance(kind, list) or kind in WIDGETS) and not settings.get("forceInput")


def _options(kind, settings: dict) -> list:
    return kind if isinstance(kind, list) else settings.get("options", [])


def _widget_value(node: Node, name: str, kind, settings: dict):
    value = node.inputs.get(name)
    if isinstance(value, Promoted):
        value = value.value
    if isinstance(value, Out) and value.node.class_type == "PiDKitDownload":
        return ""  # older front ends look for a name that stands there, and say it is missing
    if value is None or isinstance(value, Out):
        options = _options(kind, settings)
        blank = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
        value = settings.get("default", options[0] if options else blank.get(kind))
    return float(value) if kind == "FLOAT" else value


def _widget_values(node: Node, name: str, kind, settings: dict) -> list:
    """An input's value, and those of the widgets that the front end puts beside it."""
    beside = ["fixed"] if settings.get("control_after_generate") else []
    beside += ["image"] if settings.get("image_upload") else []
    return [_widget_value(node, name, kind, settings), *beside]


def _ui_input(name: str, kind, settings: dict, info: dict, place: int) -> dict:
    entry = {"name": name, "type": "COMBO" if isinstance(kind, list) else kind, "link": None}
    if name in info["input"].get("optional", {}) or place >= settings.get("grows_from", place + 1):
        entry["shape"] = 7
    if "grows_from" in settings:
        entry["label"] = name.rpartition(".")[2]
    if _is_widget(kind, settings):
        entry["widget"] = {"name": name}
    return entry


def _link(source: Out, entry: dict, node: Node, place: int, object_info: dict) -> list:
    """From an output to a node's input at that place, as the front end stores it."""
    own = isinstance(source, Promoted)
    kind = entry["type"] if own else object_info[source.node.class_type]["output"][source.index]
    return [entry["link"], source.node.id, source.index, node.id, place, kind]


def _ui_node(node: Node, object_info: dict, links: list[list], every_input: bool) -> dict:
    info = object_info[node.class_type]
    definitions = _definitions(info, node)
    advanced = {name for name, _, settings in definitions if settings.get("advanced")}
    unfolded = bool(advanced & node.inputs.keys())  # what this workflow sets is not hidden
    folded = 0 if unfolded or not advanced else len(advanced) - 1  # rows; the button takes one
    if every_input:  # then older front ends know them by their place, and have widgets after sockets
        definitions = sorted(definitions, key=lambda one: _is_widget(*one[1:]))
    inputs: list[dict] = []
    values = []
    for name, kind, settings in definitions:
        source = node.inputs.get(name)
        if every_input or isinstance(source, Out) or not _is_widget(kind, settings):
            entry = _ui_input(name, kind, settings, info, len(inputs))
            if isinstance(source, Out):
                entry["link"] = len(links) + 1
                links.append(_link(source, entry, node, len(inputs), object_info))
            inputs.append(entry)
        if _is_widget(kind, settings):
            values += _widget_values(node, name, kind, settings)
    outputs = [
        {"name": name, "type": kind, "links": [], "slot_index": i}
        for i, (name, kind) in enumerate(zip(info["output_name"], info["output"], strict=True))
    ]
    slots = sum("widget" not in entry or entry["link"] is not None for entry in inputs)
    height = node.height or TITLE + ROW * (max(slots, len(outputs)) + len(values) - folded)
    return {
        "id": node.id,
        "type": node.class_type,
        "pos": [0, 0],
        "size": [node.width, height],
        "flags": {},
        "order": 0,
        "mode": 0,
        **({"showAdvanced": True} if unfolded else {}),
        "inputs": inputs,
        "outputs": outputs,
        "title": node.title or info.get("display_name") or node.class_type,
        "properties": _properties(node, info, values),
        "widgets_values": values,
    }


def _properties(node: Node, info: dict, values: list) -> dict:
    """Which pack a node is from, and where the files lie that it names: what front end and managers offer to get."""
    ours = node.class_type.startswith("PiDKit")
    files = [model_entry(value.removeprefix("fetch: ")) for value in values if isinstance(value, str)]
    files = [file for file in files if file is not None]
    return {
        "Node name for S&R": node.class_type,
        **({"cnr_id": "pidkit", "ver": pack_version()} if ours else CORE),
        **({"models": files} if files else {}),
    }


def pack_version() -> str:
    return re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]


def _place(nodes: list[Node], boxes: list[dict], object_info: dict) -> None:
    """Give every node its place: columns from the left, stacked from the top."""
    x = 0
    for column in sorted({node.column for node in nodes}):
        y = 0
        members = [node for node in nodes if node.column == column]
        for node in members:
            boxes[node.id - 1]["pos"] = [x, y]
            y += boxes[node.id - 1]["size"][1] + GAP + _grows(node, object_info)
        x += max(node.width for node in members) + GAP


def _view(boxes: list[dict], groups: list[dict]) -> dict:
    """Scale and offset of the canvas at which note and first nodes are seen at once, and all of it where it fits."""
    bounds = [(*box["pos"], *box["size"]) for box in boxes] + [tuple(group["bounding"]) for group in groups]
    left, top = (min(bound[axis] for bound in bounds) for axis in (0, 1))
    right, bottom = (max(bound[axis] + bound[axis + 2] for bound in bounds) for axis in (0, 1))
    fits = min(VIEW[0] / (right - left), VIEW[1] / (bottom - top))
    scale = round(min(1.0, max(SMALLEST, fits)), 3)
    return {"scale": scale, "offset": [round(VIEW_AT[0] / scale - left), round(VIEW_AT[1] / scale - top)]}


def _grows(node: Node, object_info: dict) -> int:
    """What a node's height may grow by when it writes about itself."""
    return STATUS * (node.class_type.startswith("PiDKit") and "hidden" in object_info[node.class_type]["input"])


def _groups(nodes: list[Node], all_boxes: list[dict], object_info: dict) -> list[dict]:
    groups = []
    names = list(dict.fromkeys(node.group for node in nodes))
    for i, name in enumerate(names):
        members = [node for node in nodes if node.group == name]
        boxes = [all_boxes[node.id - 1] for node in members]
        left, top = (min(box["pos"][axis] for box in boxes) for axis in (0, 1))
        right = max(box["pos"][0] + box["size"][0] for box in boxes)
        growth = [_grows(node, object_info) for node in members]
        bottom = max(box["pos"][1] + box["size"][1] + more for box, more in zip(boxes, growth, strict=True))
        bounding = [left - 20, top - 90, right - left + 40, bottom - top + 110]
        groups.append({"id": i + 1, "title": name, "bounding": bounding, "color": COLOURS[i % 3], "font_size": 24})
    return groups


def _by_dependency(nodes: list[Node]) -> list[Node]:
    ordered: list[Node] = []

    def visit(node: Node) -> None:
        if node in ordered:
            return
        for value in node.inputs.values():
            if isinstance(value, Out) and not isinstance(value, Promoted):
                visit(value.node)
        ordered.append(node)

    for node in nodes:
        visit(node)
    return ordered


def _note(number: int, text: str, top: int) -> dict:
    plain = re.sub(r"\]\([^)]*\)|[*\[]", "", text)  # links without their addresses
    lines = sum(1 + len(line) // 76 for line in plain.splitlines() if line)
    return {
        "id": number,
        "type": NOTE,
        "pos": [-NOTE_WIDTH - 60, top + TITLE],
        "size": [NOTE_WIDTH, 60 + 20 * lines],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "How to use this",
        "properties": {},
        "widgets_values": [text],
    }
