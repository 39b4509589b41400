"""Files of our own in ComfyUI's input and output folders: names to choose from, paths, new names."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

OUTPUT = " [output]"  # ComfyUI's mark for a name in the output folder


def listed_files(output_folder: str, ending: str) -> list[str]:
    """Names for a Combo: files in the input folder, then those under `output_folder` of the output folder."""
    root = Path(folder_paths.get_output_directory())
    saved = [p.relative_to(root).as_posix() + OUTPUT for p in (root / output_folder).rglob(f"*{ending}")]
    given = [p.name for p in Path(folder_paths.get_input_directory()).glob(f"*{ending}") if p.is_file()]
    return [*sorted(given), *sorted(saved)]


def resolve_file(name: str) -> str:
    """The path behind a name of `listed_files`. Raises FileNotFoundError."""
    if not folder_paths.exists_annotated_filepath(name):
        raise FileNotFoundError(f"no such file: {name}; press R to refresh the list")
    return folder_paths.get_annotated_filepath(name)


def file_stamp(name: str | None) -> tuple | None:
    """Changes when the file behind a name does: for fingerprint_inputs, which gets None for an input that is linked."""
    if name is None or not folder_paths.exists_annotated_filepath(name):
        return None
    stat = os.stat(folder_paths.get_annotated_filepath(name))
    return stat.st_mtime_ns, stat.st_size


def new_file(prefix: str, ending: str) -> tuple[Path, dict[str, str]]:
    """A free path in the output folder for ComfyUI's filename_prefix, and the entry that names it in a node's UI."""
    root = folder_paths.get_output_directory()
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root)
    file = f"{name}_{counter:05}_{ending}"
    return Path(folder) / file, {"filename": file, "subfolder": subfolder, "type": "output"}
