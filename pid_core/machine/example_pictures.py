"""The pictures of the example workflows, and how they get into ComfyUI's input folder: one, or a folder of photos."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "example_workflows"
WHOLE_FOLDER = "pidkit_photos"  # all but those that are painted on


def example_pictures() -> set[str]:
    """File names, as Load Image knows them, and WHOLE_FOLDER; all begin with pidkit_, so that none is a user's own."""
    return {WHOLE_FOLDER, *(path.name for path in _files())}


def put_example_picture(name: str, input_folder: str | Path) -> None:
    """Copies the example picture into the folder where it has no file of that name; one that is there stays as it is.

    So does a folder for WHOLE_FOLDER, whatever is in it by now. Raises ValueError for a name that is not in
    `example_pictures`, OSError where the folder takes no file.
    """
    if name not in example_pictures():
        raise ValueError(f"{name} is no example picture of this pack")
    target = Path(input_folder) / name
    if name == WHOLE_FOLDER:
        _put_folder(target)
    elif not target.is_file():
        _put_file(name, target)


def _files() -> list[Path]:
    return sorted(FOLDER.glob("pidkit_*.png"))


def _put_folder(target: Path) -> None:
    if target.is_dir():
        return
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir()
        for path in sorted(FOLDER.glob("pidkit_photo*.png")):
            shutil.copyfile(path, part / path.name)
        part.rename(target)
    except OSError:
        if not target.is_dir():  # else another came first
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_file(name: str, target: Path) -> None:
    part = target.with_name(f".{name}.{uuid.uuid4().hex}.part")
    try:
        shutil.copyfile(FOLDER / name, part)
        _name_it(part, target)
    finally:
        part.unlink(missing_ok=True)


def _name_it(part: Path, target: Path) -> None:
    try:
        os.link(part, target)  # unlike a rename, never replaces what came there meanwhile
    except FileExistsError:
        if not target.is_file():
            raise
    except OSError:  # a file system without hard links
        if not target.exists():
            part.rename(target)
