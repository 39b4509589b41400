"""Known files, fetched into ComfyUI's model folders by the node that needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ...pid_core.hub.catalogue import FILES, HubFile, get_file, local_name
from ...pid_core.hub.download import fetch, set_aside_if_damaged
from ...pid_core.hub.licences import LICENCES, check_licences, licence_question
from ...pid_core.log import log
from ...pid_core.machine.comfy_home import folder_for_new
from ...pid_core.printable import quoted
from ...pid_core.tensor_files import Stamp
from ..comfy.node_text import show_on_node

MARK = "fetch: "  # before the names in a Combo that can be fetched; they stay in the list when the file is there
HOW = "switch accept_licence on in this node and run again"


def licence_input() -> io.Boolean.Input:
    return io.Boolean.Input(
        "accept_licence",
        default=False,
        optional=True,
        tooltip="Only for files that are fetched: you have read the licence that the message names, and accept it. "
        "NVIDIA's weights are for non-commercial use only (NSCLv1). Asked once and kept in ComfyUI's user folder.",
    )


def fetch_options(*folders: str) -> list[str]:
    """Names of the files that can be fetched into these folders, marked."""
    return [MARK + file.name for file in FILES if file.listed and file.folder in folders]


def marked_file(choice: str) -> HubFile | None:
    """The file behind a marked name, None for any other name."""
    return get_file(choice.removeprefix(MARK)) if choice.startswith(MARK) else None


def not_listed(node: type[io.ComfyNode], name: str, choice: str) -> str | None:
    """What is wrong with a name that an input's list does not hold, in one line; None where it does."""
    options = next(entry.options for entry in node.define_schema().inputs if entry.id == name)
    if choice in options:
        return None
    return f"{name} is {quoted(choice)}, which is not in its list: choose another, or press R to refresh the list"


def local_choice(file: HubFile) -> str | None:
    """The name that ComfyUI's loaders list this file under, None where it is not there."""
    return local_name(file, folder_paths.get_filename_list(file.folder))


def generation(file: HubFile) -> int:
    """Goes up when the file was replaced or deleted since it was last asked for, and not when `obtain` fetched it.

    For fingerprint_inputs: what was loaded from a file that came during the run is good for the next one too.
    """
    stamp, (known, count) = _stamp(file), _seen.get(file.name, (None, 0))
    if file.name in _seen and stamp != known:
        count += 1
    _seen[file.name] = stamp, count
    return count


_seen: dict[str, tuple[tuple | None, int]] = {}  # name -> stamp of the file as it is known, and its generation


def _stamp(file: HubFile) -> tuple | None:
    name = local_choice(file)
    path = None if name is None else folder_paths.get_full_path(file.folder, name)
    return None if path is None else Stamp.of(path)


def obtain(node: type[io.ComfyNode], files: Sequence[HubFile], accept: bool) -> list[str]:
    """The names that ComfyUI's loaders list these files under, after those were fetched that were missing or damaged.

    Raises LicenceError, before anything is fetched, where a licence is not accepted; FetchError where one cannot be
    fetched.
    """
    missing = [file for file in files if not _is_here(node, file)]
    check_licences(missing, _record(), accept=accept, how=HOW)
    for number, file in enumerate(missing, 1):
        _fetch(node, file, f" ({number} of {len(missing)})" if len(missing) > 1 else "")
    return [local_choice(file) or file.name for file in files]


def not_accepted(files: Sequence[HubFile], accept: bool | None) -> str | None:
    """The line with which `obtain` would ask for the licences of those that are not here yet; None where it would not.

    accept: None where it is not known before the run.
    """
    missing = [file for file in files if local_choice(file) is None]
    return licence_question(missing, _record(), how=HOW) if accept is False and missing else None


def _record() -> Path:
    return Path(folder_paths.get_system_user_directory("pidkit")) / "licences.json"


def _is_here(node: type[io.ComfyNode], file: HubFile) -> bool:
    name = local_choice(file)
    path = None if name is None else folder_paths.get_full_path(file.folder, name)
    return path is not None and not set_aside_if_damaged(Path(path), lambda line: _say(node, line))


def _say(node: type[io.ComfyNode], line: str) -> None:
    log.warning("%s", line)
    show_on_node(node, line)


def _fetch(node: type[io.ComfyNode], file: HubFile, which: str) -> None:
    licence = LICENCES[file.licence]
    # also where the switch came on with somebody else's workflow
    terms = f"under {licence.name} ({licence.summary}; {licence.page})"
    log.info("fetching %s from %s, %s", file.name, file.page, terms)
    bar = comfy.utils.ProgressBar(file.size or 1)

    def progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total or done)
        show_on_node(node, f"fetching {file.name}{which}: {done / 1e9:.2f} of {total / 1e9:.2f} GB", terms)

    show_on_node(node, f"fetching {file.name}{which}", terms)
    fetch(file, _folder(file.folder), progress=progress, say=lambda line: _say(node, line))
    _seen[file.name] = _stamp(file), _seen.get(file.name, (None, 0))[1]
    show_on_node(node, f"{file.name} fetched", terms)


def _folder(name: str) -> Path:
    return folder_for_new(name, [Path(path) for path in folder_paths.get_folder_paths(name)], folder_paths.models_dir)
