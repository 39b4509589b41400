"""Writes locales/en/nodeDefs.json from the nodes themselves, so that the words exist once. `make locales` runs it.

locales/zh/nodeDefs.json is written by hand; tests/comfyui/test_help.py tells what it lacks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import comfy_env
from comfy_env import ROOT

PREFIX = "PiDKit"
OUTPUT = " [output]"  # ComfyUI's mark for a file in the output folder
FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".latent", ".png", ".jpg", ".webp", ".json")


def locale_file(language: str) -> Path:
    return ROOT / "locales" / language / "nodeDefs.json"


def our_nodes(object_info: dict) -> dict:
    """Those that a user finds in the menus."""
    return {
        name: node for name, node in sorted(object_info.items()) if name.startswith(PREFIX) and not node.get("dev_only")
    }


def inputs_of(node: dict) -> dict[str, list]:
    """Name -> [type, settings] of every input, as ComfyUI lists them."""
    return {name: entry for kind in ("required", "optional") for name, entry in node["input"].get(kind, {}).items()}


def options_of(entry: list) -> list[str]:
    """The choices of a combo that are words of ours, without names of files."""
    kind, settings = entry[0], entry[1] if len(entry) > 1 else {}
    listed = kind if isinstance(kind, list) else settings.get("options", [])
    words = [option for option in listed if isinstance(option, str)]
    return [word for word in words if not word.removesuffix(OUTPUT).lower().endswith(FILE_ENDINGS)]


def english(object_info: dict) -> dict:
    """The contents of nodeDefs.json in the words of the nodes' own schemas."""
    words = {}
    for name, node in our_nodes(object_info).items():
        inputs = {}
        for key, entry in inputs_of(node).items():
            inputs[key] = {"name": entry[1].get("display_name") or key, "tooltip": entry[1].get("tooltip") or ""}
            if options_of(entry):
                inputs[key]["options"] = {option.replace(".", "_"): option for option in options_of(entry)}
        outputs = {
            str(i): {"name": label, "tooltip": tooltip or ""}
            for i, (label, tooltip) in enumerate(zip(node["output_name"], node["output_tooltips"], strict=True))
        }
        words[name] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": inputs,
            "outputs": outputs,
        }
    return words


def text_of(words: dict) -> str:
    return json.dumps(words, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    from comfy_server import ComfyServer, temporary_folder

    comfyui, pack = comfy_env.find_comfyui()
    with temporary_folder() as folder, ComfyServer(comfyui, comfy_env.python(), Path(folder), pack=pack) as server:
        words = english(server.object_info())
    locale_file("en").write_text(text_of(words), encoding="utf-8", newline="\n")
    print(f"{len(words)} nodes: {locale_file('en')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
