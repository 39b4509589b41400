"""Files of our own in ComfyUI's input and output folders: names to choose from, paths, new names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import folder_paths

from ...pid_core.files import write_new
from ...pid_core.names import check_prefix
from ...pid_core.printable import printable
from ...pid_core.tensor_files import Stamp


class SavedFiles(NamedTuple):
    """A kind of file that we write: its folder in the output folder, its ending."""

    folder: str
    ending: str


LATENTS = SavedFiles("latents", ".latent")
CAPTIONS = SavedFiles("captions", ".safetensors")
NAME = "PiD"  # of files whose prefix names a folder only
OUTPUT = " [output]"  # ComfyUI's mark for a name in the output folder


def listed_files(kind: SavedFiles) -> list[str]:
    """Names for a Combo: files of this kind in the input folder, then those under the kind's own folder."""
    root = Path(folder_paths.get_output_directory())
    saved = [p.relative_to(root).as_posix() + OUTPUT for p in (root / kind.folder).rglob(f"*{kind.ending}")]
    uploads = [p.name for p in Path(folder_paths.get_input_directory()).glob(f"*{kind.ending}") if p.is_file()]
    return [*sorted(uploads), *sorted(saved)]


def resolve_file(name: str) -> str:
    """The path behind a name of `listed_files`. Raises FileNotFoundError."""
    path = _path(name)
    if path is None:
        raise FileNotFoundError(f"no such file: {printable(name)}; press R to refresh the list")
    return path


def file_stamp(name: str | None) -> Stamp | None:
    """Changes when the file behind a name does: for fingerprint_inputs, which gets None for an input that is linked."""
    path = None if name is None else _path(name)
    return None if path is None else Stamp.of(path)


def _path(name: str) -> str | None:
    base, folder = folder_paths.annotated_filepath(name)
    folder = os.path.abspath(folder or folder_paths.get_input_directory())
    # ComfyUI v0.25 does not look whether a name that comes by a link leads out of the folder
    inside = os.path.abspath(os.path.join(folder, base)).startswith(os.path.join(folder, ""))
    if not inside or "\0" in name or not folder_paths.exists_annotated_filepath(name):
        return None
    return folder_paths.get_annotated_filepath(name)


def save_new(prefix: str, kind: SavedFiles, content: bytes) -> dict[str, str]:
    """Write a new file in the output folder for ComfyUI's filename_prefix; returns the entry for a node's UI.

    Raises ValueError in one line for a prefix that cannot be one.
    """
    check_prefix(prefix)
    if not prefix.strip() or prefix.endswith(("/", "\\")):
        prefix += NAME
    root = os.path.abspath(folder_paths.get_output_directory())
    if not os.path.abspath(os.path.join(root, prefix)).startswith(os.path.join(root, "")):
        raise ValueError(f"filename_prefix {printable(prefix)} leads out of ComfyUI's output folder: choose another")
    folder, name, _, subfolder, _ = folder_paths.get_save_image_path(prefix, root)
    path = write_new(Path(folder), name, kind.ending, content)
    return {"filename": path.name, "subfolder": subfolder, "type": "output"}
