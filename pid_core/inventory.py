"""What lies in ComfyUI's models folder that PiD can use, and what the example workflows need of it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .checkpoint import read_checkpoint
from .comfy_home import model_files, model_folders
from .hub import get_file, known_file, local_name

WORKFLOWS = Path(__file__).parent.parent / "example_workflows" / "api"
LARGEST_PICKLE = 8_000_000_000  # bytes
# The inputs in which loaders take a file's name, by how they begin.
_FOLDER_OF_INPUT = {
    "model_name": "diffusion_models",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "vae_name": "vae",
    "ckpt_name": "checkpoints",
    "lora_name": "loras",
}
_FETCH_MARK = "fetch: "
GEMMA_WIDTH = 2304


@dataclass(frozen=True)
class Found:
    """A file of ours. folder: kind of model, as ComfyUI names it. name: as its loaders list it. what: a few words.

    usable: False for one that cannot be loaded, `what` then says why.
    """

    folder: str
    name: str
    what: str
    usable: bool = True


@dataclass(frozen=True)
class Need:
    """A file that a workflow names. command: what fetches it, None where this pack cannot."""

    folder: str
    name: str
    here: bool
    command: str | None = None


def find_models(comfyui: Path) -> list[Found]:
    """PiD and PixelDiT checkpoints, Gemma-2 text encoders and VAEs of the families PiD decodes."""
    folders = model_folders(comfyui)
    readers = {"diffusion_models": _checkpoint, "text_encoders": _text_encoder, "vae": _vae}
    found = []
    for folder, reader in readers.items():
        for name, path in model_files(folders[folder]):
            seen = reader(name, path)
            if seen is not None:
                found.append(Found(folder, name, *seen))
    return found


def workflow_needs(comfyui: Path) -> dict[str, list[Need]]:
    """Name of an example workflow -> the model files it names."""
    folders = model_folders(comfyui)
    here = {folder: [name for name, _ in model_files(paths)] for folder, paths in folders.items()}
    needs = {}
    for path in sorted(WORKFLOWS.glob("*.json")):
        named = _named_files(json.loads(path.read_text(encoding="utf-8")))
        needs[path.stem] = [_need(folder, name, here[folder]) for folder, name in sorted(named)]
    return needs


def _named_files(graph: dict) -> set[tuple[str, str]]:
    """Folder and name of every model file in a graph of the API's format."""
    named = set()
    for node in graph.values():
        for key, value in node["inputs"].items():
            if node["class_type"] == "PiDKitDownload" and key == "file":
                named.add((get_file(value).folder, value))
            for start, folder in _FOLDER_OF_INPUT.items():
                if key.startswith(start) and isinstance(value, str) and "." in value:
                    named.add((folder, value.removeprefix(_FETCH_MARK)))
    return named


def _need(folder: str, name: str, here: list[str]) -> Need:
    file = known_file(name)
    if name in here or (file is not None and local_name(file, here) is not None):
        return Need(folder, name, True)
    return Need(folder, name, False, None if file is None else f"python -m pid_core fetch {get_file(file.name).name}")


def _checkpoint(name: str, path: Path) -> tuple[str, bool] | None:
    if path.suffix.lower() in (".pth", ".pt"):
        # PyTorch's zip files are mapped; what is older, or larger than any PiD, would be read whole
        if path.stat().st_size > LARGEST_PICKLE or not zipfile.is_zipfile(path):
            return None
    elif path.suffix.lower() not in (".safetensors", ".sft"):
        return None
    try:
        config = read_checkpoint(path).config
    except ValueError as error:
        # a file whose name says PiD and that does not load is worth a line; others are none of our business
        known = known_file(name) is not None and known_file(name).licence == "NSCLv1"
        return (str(error), False) if known else None
    except OSError:
        return None
    steps = "4 steps" if config.schedule == "distilled" else "25 steps, undistilled"
    if not config.has_latent:
        return "PixelDiT, text to image", True
    return f"PiD {config.version}, {config.family or 'family not told by the file'}, {steps}", True


def _text_encoder(name: str, path: Path) -> tuple[str, bool] | None:
    shapes = _shapes(path)
    if shapes is None or "model.layers.0.post_feedforward_layernorm.weight" not in shapes:
        return None
    width = shapes.get("model.embed_tokens.weight", [0, 0])[-1]
    if width != GEMMA_WIDTH or "model.layers.0.self_attn.q_norm.weight" in shapes:
        return None  # Gemma 3, or another size
    if "spiece_model" not in shapes:
        return "Gemma-2-2b without its tokenizer: CLIPLoader needs the file from Comfy-Org/PixelDiT", False
    return "Gemma-2-2b, PiD's text encoder", True


def _vae(name: str, path: Path) -> tuple[str, bool] | None:
    file = known_file(name)
    if file is not None and file.folder == "vae":
        return f"VAE, {file.family}", True
    shapes = _shapes(path)
    if shapes is None:
        return None
    if "decoder.conv1.weight" in shapes:
        return ("VAE, qwenimage", True) if shapes["decoder.conv1.weight"][1] == 16 else None
    channels = shapes.get("decoder.conv_in.weight", [0, 0])[1]
    families = {4: "sdxl (or SD 1)", 16: "flux or sd3", 32: "flux2"}
    return (f"VAE, {families[channels]}", True) if channels in families else None


def _shapes(path: Path) -> dict[str, list[int]] | None:
    if path.suffix.lower() not in (".safetensors", ".sft"):
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
