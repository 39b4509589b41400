"""Before publishing: links to what the registry's archive leaves out lead to GitHub, in the pages that it holds.

In the repository links go by path, which suits every branch and fork; a reader of the archive would find nothing there.
Run as `python scripts/archive_links.py` in a checkout to publish from: it changes the pages. Standard library only.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path

PROJECT = "pidkit/ComfyUI-PiDKit"
PAGES = f"https://github.com/{PROJECT}/blob/main/"
PICTURES = f"https://raw.githubusercontent.com/{PROJECT}/main/"
# ](path), ](path#heading) and src="path"; not ](https://...), ](#heading) or ](/absolute).
LINK = re.compile(r"(?P<before>\]\(|src=\")(?P<path>(?![a-z]+:|/)[^)#\"\s]+)")
IMAGES = (".gif", ".jpg", ".jpeg", ".png", ".svg", ".webp")


def files(folder: Path, *which: str) -> list[str]:
    """Files in git, as paths with slashes."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", *which]
    return subprocess.check_output(command, encoding="utf-8").split("\0")[:-1]


def left_out(folder: Path) -> set[str]:
    """What .comfyignore names, and every folder that holds it."""
    names = files(folder, "--ignored", "--exclude-from=.comfyignore")
    return {part for name in names for part in (name, *(str(up) for up in Path(name).parents[:-1]))}


def outside(text: str, page: str, gone: set[str]) -> str:
    """The text of a page with links to what is `gone` made absolute. page: its path in the repository."""

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link["path"]))
        if target not in gone:
            return link[0]
        return link["before"] + (PICTURES if target.lower().endswith(IMAGES) else PAGES) + target

    return LINK.sub(lead, text)


def main(folder: Path) -> int:
    gone = left_out(folder)
    for page in files(folder):
        path = folder / page
        if page in gone or path.suffix != ".md":
            continue
        text = path.read_bytes().decode()
        led = outside(text, page, gone)
        if led != text:
            path.write_bytes(led.encode())
            print(f"{page}: links to what the archive leaves out lead to GitHub now")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(os.curdir)))
