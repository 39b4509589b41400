"""Folders that a user names: which may be read, and where results go.

Whoever reaches ComfyUI may name any folder. Where that is only the machine itself, all of its folders are open; where
ComfyUI answers the network, its input and output folders are, and what its owner has linked into them.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import folder_paths
from comfy.cli_args import args

from ...pid_core.names import LONGEST_NAME, check_part
from ...pid_core.printable import printable, quoted


def source_folder(name: str) -> Path:
    """The folder behind a name: in ComfyUI's input folder, with [output] behind it in the output folder, or a path.

    Raises ValueError in one line where there is none, or none that may be read.
    """
    typed = name.strip().strip("\"'")  # as Windows copies a path
    below, root = folder_paths.annotated_filepath(typed)
    root = os.path.abspath(root or folder_paths.get_input_directory())
    path = os.path.abspath(os.path.join(root, os.path.expanduser(below)))
    if not os.path.isabs(os.path.expanduser(below)):
        if not _is_in(path, root):
            raise ValueError(
                f"folder is {quoted(typed)}, which leads out of ComfyUI's {os.path.basename(root)} folder: type one "
                "within it, or a whole path"
            )
    elif _answers_the_network() and not any(_is_in(path, root) for root in _own_folders()):
        raise ValueError(
            f"folder is {quoted(typed)}, but this ComfyUI answers the network (--listen) and reads only what lies in "
            "its input and output folders: put the pictures there, or a link to their folder"
        )
    if "\0" in typed or not os.path.isdir(path):
        raise ValueError(
            f"there is no folder {printable(path)}: make it and put pictures in, or type another in folder"
        )
    return Path(path)


def results_folder(name: str) -> tuple[Path, str]:
    """Where results go in the output folder, and what stands before their names in a filename_prefix.

    Raises ValueError in one line for what can be no folder there.
    """
    typed = name.strip().replace("\\", "/").strip("/")
    parts = typed.split("/")
    if typed.isprintable() and max(len(part.encode()) for part in parts) > LONGEST_NAME:
        raise ValueError(f"output_folder is {quoted(typed)}: type a name of at most {LONGEST_NAME} bytes")
    if not typed.isprintable() or "%" in typed:
        raise ValueError(
            f"output_folder is {quoted(typed)}: type a plain name without %, because what is done is looked for there"
        )
    for part in parts:
        check_part(part, f"output_folder {quoted(typed)}")
    root = os.path.abspath(folder_paths.get_output_directory())
    path = os.path.abspath(os.path.join(root, typed))
    if not _is_in(path, root):
        raise ValueError(f"output_folder is {quoted(typed)}, which leads out of ComfyUI's output folder: type another")
    below = os.path.relpath(path, root).replace(os.sep, "/")
    return Path(path), "" if below == "." else f"{below}/"


def _own_folders() -> list[str]:
    return [os.path.abspath(folder_paths.get_input_directory()), os.path.abspath(folder_paths.get_output_directory())]


def _is_in(path: str, folder: str) -> bool:
    """By name: a link that lies in the folder was put there by who owns it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _answers_the_network() -> bool:
    return not all(_is_own(address.strip()) for address in args.listen.split(","))


def _is_own(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
