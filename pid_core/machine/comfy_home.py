"""Where ComfyUI and its models are, found by path: for the command line, which runs without ComfyUI."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..printable import printable

# ComfyUI's own folders under models/, by the name its loaders list them under.
FOLDERS = {
    "diffusion_models": ("diffusion_models", "unet"),
    "text_encoders": ("text_encoders", "clip"),
    "vae": ("vae",),
    "clip_vision": ("clip_vision",),
    "checkpoints": ("checkpoints",),
    "loras": ("loras",),
}
_ALIASES = {"unet": "diffusion_models", "clip": "text_encoders"}
ENDINGS = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".bin", ".gguf")


@dataclass(frozen=True)
class Home:
    """Where ComfyUI keeps what. code: where main.py and extra_model_paths.yaml lie; the base folder where not known."""

    code: Path
    models: Path
    input: Path
    user: Path

    @staticmethod
    def at(folder: Path) -> Home:
        """Everything in one folder, as ComfyUI has it by default."""
        return Home(folder, folder / "models", folder / "input", folder / "user")

    @property
    def folders(self) -> dict[str, list[Path]]:
        """Folder name, as in FOLDERS -> its paths; see `model_folders`."""
        return model_folders(self.code, self.models)


def add_home_arguments(parser: ArgumentParser) -> None:
    """--comfyui, and those of ComfyUI's own arguments that say where its folders are, by the same names."""
    parser.add_argument("--comfyui", type=Path, metavar="PATH", help="ComfyUI's folder, where it is not found")
    for name in ("base", "models", "input", "user"):
        about = "what holds its models, input and user folders" if name == "base" else f"its {name} folder"
        parser.add_argument(f"--{name}-directory", type=Path, metavar="PATH", help=f"as for ComfyUI itself: {about}")


def find_home(args: Namespace, code: Path | None) -> Home | None:
    """What the arguments of `add_home_arguments` tell; None where they tell nothing, and no ComfyUI was found (code).

    Raises FileNotFoundError where a folder is named that is not there.
    """
    folders = {name: getattr(args, f"{name}_directory") for name in ("base", "models", "input", "user")}
    for name, folder in folders.items():
        if folder is not None and not Path(os.path.expanduser(folder)).is_dir():
            raise FileNotFoundError(f"no such folder: --{name}-directory {printable(folder)}")
    named = {name: folder for name, folder in folders.items() if folder is not None}
    folders = {name: Path(os.path.expanduser(folder)).absolute() for name, folder in named.items()}
    base = folders.pop("base", None) or code or (folders["models"].parent if "models" in folders else None)
    return None if base is None else replace(Home.at(base), code=code or base, **folders)


def find_comfyui(path: str | Path | None = None) -> Path | None:
    """ComfyUI's folder: `path`, else COMFYUI_PATH, else the one this pack lies in; None where there is none.

    It is where models, custom_nodes and user lie: with --base-directory, and in ComfyUI Desktop, that is not where
    ComfyUI's code is. Raises FileNotFoundError where a folder is named that is neither.
    """
    name = path or os.environ.get("COMFYUI_PATH", "").strip()
    if name:
        folder = Path(os.path.expanduser(name)).resolve()
        if not _is_comfyui(folder):
            raise FileNotFoundError(f"no ComfyUI there (neither main.py nor models and custom_nodes): {folder}")
        return folder
    pack = Path(__file__).parents[2]
    # PWD keeps the way through a link in custom_nodes, which __file__ may have lost
    for here in (pack.absolute(), Path(os.environ.get("PWD", ".")).absolute()):
        for folder in (here, *here.parents):
            if folder.name == "custom_nodes" and _is_comfyui(folder.parent):
                return folder.parent
    own = pack.resolve() / ".comfyui"
    return own if _is_comfyui(own) else None


def _is_comfyui(folder: Path) -> bool:
    whole = (folder / "main.py").is_file() and (folder / "comfy").is_dir()
    return whole or ((folder / "models").is_dir() and (folder / "custom_nodes").is_dir())


def folder_for_new(kind: str, paths: Sequence[Path], models: str | Path) -> Path:
    """Where new files of a kind (a key of FOLDERS) go, of the paths that ComfyUI looks for them in, in its order.

    models: ComfyUI's own models folder. The first path where it is not ComfyUI's own: ComfyUI puts what is marked
    `is_default` there. Else ComfyUI's own folder of the kind's present name, not the one of its old name.
    """
    own = {Path(os.path.normpath(Path(models) / part)): part for part in FOLDERS[kind]}
    first = Path(os.path.normpath(paths[0]))
    if first not in own:
        return first
    return next((path for path, part in own.items() if part == kind and path in paths), first)


def model_folders(comfyui: Path, models: Path | None = None) -> dict[str, list[Path]]:
    """Folder name, as in FOLDERS -> its paths, the one to write to first; those of extra_model_paths.yaml included.

    models: ComfyUI's models folder, where it is not the one in `comfyui` (--models-directory).
    """
    own = models or comfyui / "models"
    found = {name: [own / part for part in parts] for name, parts in FOLDERS.items()}
    for name, path, is_default in _extra_paths(comfyui / "extra_model_paths.yaml"):
        paths = found.get(_ALIASES.get(name, name))
        if paths is not None and path not in paths:
            paths.insert(0 if is_default else len(paths), path)
    return found


def _extra_paths(config: Path) -> list[tuple[str, Path, bool]]:
    try:
        import yaml

        sections = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (ImportError, OSError, ValueError):
        return []
    except Exception as error:  # yaml's own errors share no base with ours
        raise ValueError(f"{config.name} cannot be read: {str(error).splitlines()[0]}") from None
    found = []
    for section in (sections or {}).values() if isinstance(sections, dict) else []:
        if not isinstance(section, dict):
            continue
        section = dict(section)
        base = Path(os.path.expandvars(os.path.expanduser(str(section.pop("base_path", None) or "."))))
        base = base if base.is_absolute() else config.parent / base
        default = bool(section.pop("is_default", False))
        for name, lines in section.items():
            found += [
                (name, (base / line.strip()).absolute(), default) for line in str(lines).splitlines() if line.strip()
            ]
    return found


def model_files(folders: list[Path]) -> list[tuple[str, Path]]:
    """(name as ComfyUI lists it, path) of every model file in a kind's folders; the first of a name wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for root, _, names in os.walk(folder, followlinks=True):
            for name in sorted(names):
                path = Path(root) / name
                # no pipe or device: reading one may never end
                if path.suffix.lower() in ENDINGS and path.is_file():
                    found.setdefault(path.relative_to(folder).as_posix(), path)
    return sorted(found.items())
