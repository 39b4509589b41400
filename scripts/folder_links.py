"""A folder under a second name: a symbolic link, and on Windows, where that needs a right, a junction."""

from __future__ import annotations

import os
from pathlib import Path


def link_folder(link: Path, target: Path, *, system: str = os.name) -> None:
    """Makes `link` lead to `target`, also where it was a link to another folder.

    Raises OSError, in one line: where something else stands there, or where the file system has no links.
    """
    if is_link(link):
        if link.resolve() == target.resolve():
            return
        link.unlink()
    elif os.path.lexists(link):
        raise FileExistsError(f"{link} is no link. Move it away, then run again.")
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        if system == "nt":
            _junction(target.resolve(), link)
        else:
            inside = target.resolve() in link.parent.resolve().parents  # then both may move together
            link.symlink_to(os.path.relpath(target, link.parent.resolve()) if inside else target.resolve())
    except FileExistsError:
        if link.resolve() != target.resolve():  # not by another run at the same time
            raise
    except OSError as error:
        raise OSError(
            f"{link} cannot be made a link to {target} ({error.strerror or error}): "
            "put the project on a local disk that has links (NTFS, APFS, ext4)."
        ) from None


def is_link(path: Path) -> bool:
    """Whether it is a symbolic link or a junction, broken ones too."""
    try:
        os.readlink(path)
    except (OSError, ValueError):
        return False
    return True


def _junction(target: Path, link: Path) -> None:
    import _winapi

    _winapi.CreateJunction(str(target), str(link))
