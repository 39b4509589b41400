"""The pictures of the example workflows, and how one gets into ComfyUI's input folder."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "example_workflows"


def example_pictures() -> set[str]:
    """File names, as Load Image knows them; all begin with pidkit_, so that none is a user's own."""
    return {path.name for path in FOLDER.glob("pidkit_*.png")}


def put_example_picture(name: str, input_folder: str | Path) -> None:
    """Copies the example picture into the folder where it has no file of that name; one that is there stays as it is.

    Raises ValueError for a name that is not in `example_pictures`, OSError where the folder takes no file.
    """
    if name not in example_pictures():
        raise ValueError(f"{name} is no example picture of this pack")
    target = Path(input_folder) / name
    if target.is_file():
        return
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
