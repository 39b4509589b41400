"""Writes example_workflows/NAME.json and example_workflows/api/NAME.json from workflow_graphs.py. `make workflows`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import comfy_env
from workflow_format import api_format, ui_format
from workflow_graphs import GRAPHS

FOLDER = comfy_env.ROOT / "example_workflows"


def files(object_info: dict) -> dict[Path, str]:
    """Path -> contents of every file."""
    out = {}
    for name, make in GRAPHS.items():
        graph = make()
        out[FOLDER / f"{name}.json"] = json.dumps(ui_format(graph, object_info), indent=1) + "\n"
        out[FOLDER / "api" / f"{name}.json"] = json.dumps(api_format(graph, object_info), indent=2) + "\n"
    return out


def main() -> int:
    from comfy_server import ComfyServer, temporary_folder

    comfyui, pack = comfy_env.find_comfyui()
    with temporary_folder() as folder, ComfyServer(comfyui, comfy_env.python(), Path(folder), pack=pack) as server:
        made = files(server.object_info())
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    print(f"{len(GRAPHS)} workflows in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
