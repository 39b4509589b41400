"""Writes example_workflows, from workflow_graphs.py, and subgraphs, from workflow_blueprints.py. `make workflows`.

NAME.json to open, NAME.app.json to open in App mode, api/NAME.json to queue.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import comfy_env
from workflow_blueprints import BLUEPRINTS, blueprint_format
from workflow_format import api_format, ui_format
from workflow_graphs import GRAPHS

FOLDER, SUBGRAPHS = comfy_env.ROOT / "example_workflows", comfy_env.ROOT / "subgraphs"


def files(object_info: dict) -> dict[Path, str]:
    """Path -> contents of every file."""
    out = {}
    for name, make in GRAPHS.items():
        graph = make()
        out[FOLDER / f"{name}.json"] = json.dumps(ui_format(graph, object_info), indent=1) + "\n"
        out[FOLDER / "api" / f"{name}.json"] = json.dumps(api_format(graph, object_info), indent=2) + "\n"
        if graph.app is not None:
            app = ui_format(graph, object_info, opens_as_app=True)
            out[FOLDER / f"{name}.app.json"] = json.dumps(app, indent=1) + "\n"
    for make in BLUEPRINTS:
        blueprint = make()
        file = blueprint_format(blueprint, object_info)
        out[SUBGRAPHS / f"{blueprint.name}.json"] = json.dumps(file, indent=1) + "\n"
    return out


def main() -> int:
    from comfy_server import ComfyServer, temporary_folder

    comfyui, pack = comfy_env.find_comfyui()
    with temporary_folder() as folder, ComfyServer(comfyui, comfy_env.python(), Path(folder), pack=pack) as server:
        contents = files(server.object_info())
    for path, text in contents.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(GRAPHS)} workflows in {FOLDER}, {len(BLUEPRINTS)} blueprints in {SUBGRAPHS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
