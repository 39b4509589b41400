"""What lies in ComfyUI's models folder that PiD can use, and what the example workflows need of it."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..assets import BUNDLED
from ..checkpoints.reading import examine_checkpoint
from ..errors import in_words
from ..hub.catalogue import COMMAND, get_file, known_file, local_name
from ..printable import printable
from ..rae.facts import facts_of
from ..rae.files import examine_encoder, read_statistics
from ..tensor_files import SAFETENSORS, read_shapes
from .comfy_home import Home, model_files
from .encoders import TOKENIZER, gemma_2_width, vae_families
from .example_pictures import example_pictures

WORKFLOWS = Path(__file__).parents[2] / "example_workflows" / "api"
# The inputs in which loaders take a file's name, by how they begin.
_FOLDER_OF_INPUT = {
    "model_name": "diffusion_models",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "vae_name": "vae",
    "encoder": "clip_vision",
    "statistics": "clip_vision",
    "ckpt_name": "checkpoints",
    "lora_name": "loras",
}
_FETCH_MARK = "fetch: "
_PICTURE_NODES = ("LoadImage", "LoadImageMask")
GEMMA_WIDTH = 2304
LARGEST_PICKLE = 8_000_000_000  # bytes


@dataclass(frozen=True)
class ModelFile:
    """A file of ours. folder: kind of model, as ComfyUI names it. name: as its loaders list it. what: a few words.

    usable: False for one that cannot be loaded, `what` then says why.
    """

    folder: str
    name: str
    what: str
    usable: bool = True


@dataclass(frozen=True)
class Need:
    """A file that a workflow names. here: whether the workflow finds it as it is. how: what to do where it does not."""

    folder: str
    name: str
    here: bool
    how: str | None = None


def find_models(home: Home) -> list[ModelFile]:
    """PiD and PixelDiT checkpoints, Gemma-2 text encoders, and VAEs and encoders of the families PiD decodes."""
    folders = home.folders
    readers = {"diffusion_models": _checkpoint, "text_encoders": _text_encoder, "vae": _vae, "clip_vision": _rae}
    found = []
    for folder, reader in readers.items():
        for name, path in model_files(folders[folder]):
            try:
                verdict = reader(name, path)
            except Exception as error:  # whatever it is, one file never stops the report
                reason = printable((str(error).splitlines() or [""])[0])
                verdict = f"cannot be looked at ({type(error).__name__}: {reason})", False
            if verdict is not None:
                found.append(ModelFile(folder, name, *verdict))
    return found


def workflow_needs(home: Home, models: list[ModelFile], bundled_decodes: bool) -> dict[str, list[Need]]:
    """Name of an example workflow -> the files it names: models, pictures, and the bundled model.

    models: what `find_models` saw, for what is there and cannot be loaded.
    """
    folders = home.folders
    here = {folder: [name for name, _ in model_files(paths)] for folder, paths in folders.items()}
    unusable = {(file.folder, file.name): file.what for file in models if not file.usable}
    needs = {}
    for path in sorted(WORKFLOWS.glob("*.json")):
        nodes = json.loads(path.read_text(encoding="utf-8")).values()
        candidates = (
            _need(node["class_type"], key, value, here, unusable, home.input, bundled_decodes)
            for node in nodes
            for key, value in node["inputs"].items()
            if isinstance(value, str)
        )
        files = {need for need in candidates if need is not None}
        needs[path.stem] = sorted(files, key=lambda need: (need.folder, need.name))
    return needs


def _need(
    node: str, key: str, value: str, here: dict, unusable: dict, input_folder: Path, bundled: bool
) -> Need | None:
    if node in _PICTURE_NODES and key == "image":
        return _picture(value, input_folder)
    if value == BUNDLED:
        return Need("bundled", value, bundled, "install this pack anew")
    download = node == "PiDKitDownload" and key == "file"
    loaders = (folder for start, folder in _FOLDER_OF_INPUT.items() if key.startswith(start) and "." in value)
    folder = get_file(value).folder if download else next(loaders, None)
    if folder is None:
        return None
    name = value.removeprefix(_FETCH_MARK)
    file = known_file(name)
    there = name if name in here[folder] else file and local_name(file, here[folder])
    if there is None:
        fetch = "the note in the workflow says where it comes from"
        return Need(folder, name, False, fetch if file is None else f"{COMMAND} fetch {file.name}")
    if (folder, there) in unusable:
        return Need(folder, name, False, unusable[folder, there])
    # only our own nodes find a file by another path than the one they were given
    if there != name and not (download or value.startswith(_FETCH_MARK)):
        return Need(folder, name, False, f"it is in a subfolder: choose it in {node}")
    return Need(folder, name, True)


def _picture(name: str, input_folder: Path) -> Need:
    if (input_folder / name).is_file():
        return Need("input", name, True)
    if name not in example_pictures():
        return Need("input", name, False, "put a picture of that name there, or choose another in Load Image")
    writable = input_folder.is_dir() and os.access(input_folder, os.W_OK)
    return Need("input", name, writable, "no file can be written there")


def _checkpoint(name: str, path: Path) -> tuple[str, bool] | None:
    if path.suffix.lower() in (".pth", ".pt"):
        # PyTorch's zip files are mapped; what is older, or larger than any PiD, would be read whole
        if path.stat().st_size > LARGEST_PICKLE or not zipfile.is_zipfile(path):
            return None
    elif path.suffix.lower() not in SAFETENSORS:
        return None
    try:
        config = examine_checkpoint(path)
    except (ValueError, OSError) as error:
        # a file whose name says PiD and that does not load is worth a line; others are none of our business
        file = known_file(name)
        return (str(error), False) if file is not None and file.licence == "NSCLv1" else None
    steps = "4 steps" if config.schedule == "distilled" else "25 steps, undistilled"
    if not config.has_latent:
        return "PixelDiT, text to image", True
    return f"PiD {config.version}, {config.family or 'family not told by the file'}, {steps}", True


def _text_encoder(name: str, path: Path) -> tuple[str, bool] | None:
    shapes = _shapes(path)
    if shapes is None or gemma_2_width(shapes) != GEMMA_WIDTH:
        return None
    if TOKENIZER not in shapes:
        return "Gemma-2-2b without its tokenizer: CLIPLoader needs the file from Comfy-Org/PixelDiT", False
    return "Gemma-2-2b, PiD's text encoder", True


def _vae(name: str, path: Path) -> tuple[str, bool] | None:
    file = known_file(name)
    if file is not None and file.folder == "vae":
        return f"VAE, {file.family}", True
    shapes = _shapes(path)
    if shapes is None:
        return None
    names = [
        f"{row.name} (or {row.vae.alike})" if row.vae and row.vae.alike else row.name for row in vae_families(shapes)
    ]
    return (f"VAE, {in_words(names)}", True) if names else None


def _rae(name: str, path: Path) -> tuple[str, bool] | None:
    file = known_file(name)
    try:
        if file is not None and file.path.endswith(".pt"):
            facts = facts_of(file.family or "")
            read_statistics(path, facts)
            return f"statistics of {facts.family} latents", True
        if path.suffix.lower() not in SAFETENSORS:
            return None
        encoder = examine_encoder(path)
    except (ValueError, OSError) as error:
        return (str(error), False) if file is not None else None
    if path != encoder.paths[0]:  # the first of its parts stands for all
        return None
    return f"{encoder.facts.shown}, encoder of {encoder.facts.family}", True


def _shapes(path: Path) -> dict[str, tuple[int, ...]] | None:
    if path.suffix.lower() not in SAFETENSORS:
        return None
    try:
        return read_shapes(path)
    except (ValueError, OSError):
        return None
