"""Draws example_workflows/NAME.jpg for the workflows that no small model can run: the graph itself, as a card.

`python scripts/workflow_pictures.py NAME ...`; without names, all that have no picture yet.
"""

from __future__ import annotations

import json
import sys

from PIL import Image, ImageDraw, ImageFont

from comfy_env import ROOT

FOLDER = ROOT / "example_workflows"
SIZE, MARGIN, TOP = (1280, 800), 40, 120
WIRES = {
    **{"MODEL": "#b39ddb", "CLIP": "#ffd500", "CONDITIONING": "#ffa931", "LATENT": "#ff9cf9", "VAE": "#ff6e6e"},
    **{"IMAGE": "#64b5f6", "SIGMAS": "#cdffcd", "SAMPLER": "#d5c8ff", "STRING": "#8aa", "FLOAT": "#8aa"},
}
BACK, BOX, HEAD, TEXT, FAINT = "#1e1e22", "#34343a", "#44444c", "#f2f2f2", "#a8a8b0"


def draw(workflow: dict, name: str) -> Image.Image:
    """The card of one workflow in the UI format: groups, nodes, wires; the note's heading as title."""
    nodes = {n["id"]: n for n in workflow["nodes"] if n["type"] not in ("Note", "MarkdownNote")}
    note = next(n["widgets_values"][0] for n in workflow["nodes"] if n["id"] not in nodes)
    image = Image.new("RGB", SIZE, BACK)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, 28), note.splitlines()[0].lstrip("# "), fill=TEXT, font=ImageFont.load_default(40))
    pen.text((MARGIN, 80), f"{name}.json", fill=FAINT, font=ImageFont.load_default(20))

    boxes = [group["bounding"] for group in workflow["groups"]]
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    across = (SIZE[0] - 2 * MARGIN) / (right - left)
    down = (SIZE[1] - TOP - MARGIN) / (bottom - top)

    def at(x: float, y: float) -> tuple[float, float]:
        return MARGIN + (x - left) * across, TOP + (y - top) * down

    for group in workflow["groups"]:
        x, y, width, height = group["bounding"]
        pen.rounded_rectangle((*at(x, y), *at(x + width, y + height)), 8, outline=group["color"], width=2)
        spot = at(x, y)
        pen.text((spot[0] + 10, spot[1] + 6), group["title"], fill=FAINT, font=ImageFont.load_default(17))
    for node in nodes.values():
        _box(pen, node, at)
    for _, source, output, target, slot, kind in workflow["links"]:
        _wire(pen, _port(nodes[source], output, 1, at), _port(nodes[target], slot, 0, at), WIRES.get(kind, FAINT))
    for node in nodes.values():
        _title(pen, node, at)
    return image


def _box(pen: ImageDraw.ImageDraw, node: dict, at) -> None:
    (x, y), (width, height) = node["pos"], node["size"]
    box = (*at(x, y), *at(x + width, y + height))
    pen.rounded_rectangle(box, 6, fill=BOX, outline=HEAD)


def _title(pen: ImageDraw.ImageDraw, node: dict, at) -> None:
    left, top = at(*node["pos"])
    room = at(node["pos"][0] + node["size"][0], 0)[0] - left - 24
    longest = max(node["title"].split(), key=len)
    font = next(f for size in range(15, 0, -1) if pen.textlength(longest, f := ImageFont.load_default(size)) <= room)
    lines = [""]
    for word in node["title"].split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if pen.textlength(longer, font) <= room or not lines[-1] else [*lines, word]
    text = {"font": font, "spacing": 2}
    spot = (left + 12, top + 6)
    pen.rectangle(pen.multiline_textbbox(spot, "\n".join(lines), **text), fill=BOX)  # no wire through the words
    pen.multiline_text(spot, "\n".join(lines), fill=TEXT, **text)


def _port(node: dict, slot: int, side: int, at) -> tuple[float, float]:
    """Where a wire meets the node: side 0 is left, 1 right."""
    (x, y), (width, height) = node["pos"], node["size"]
    ports = len(node["outputs"] if side else node["inputs"])
    return at(x + side * width, y + height * (0.35 + 0.6 * (slot + 0.5) / max(ports, 1)))


def _wire(pen: ImageDraw.ImageDraw, start, end, colour: str) -> None:
    bend = max(24.0, abs(end[0] - start[0]) / 2)
    points = []
    for i in range(33):
        t = i / 32
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        xs = (start[0], start[0] + bend, end[0] - bend, end[0])
        ys = (start[1], start[1], end[1], end[1])
        points.append(
            (sum(w * x for w, x in zip(weights, xs, strict=True)), sum(w * y for w, y in zip(weights, ys, strict=True)))
        )
    pen.line(points, fill=colour, width=3, joint="curve")


def main(names: list[str]) -> int:
    names = names or [p.stem for p in sorted(FOLDER.glob("*.json")) if not p.with_suffix(".jpg").exists()]
    for name in names:
        card = draw(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")), name)
        card.save(FOLDER / f"{name}.jpg", quality=88)
        print(FOLDER / f"{name}.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
