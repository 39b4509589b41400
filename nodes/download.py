"""PiD Download, and what PiD Loader shares with it: known files, fetched into ComfyUI's model folders."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..pid_core.fetch import fetch
from ..pid_core.hub import FILES, HubFile, get_file, local_name
from ..pid_core.licences import LICENCES, check_licence
from .show import show_on_node

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


def local_choice(file: HubFile) -> str | None:
    """The name that ComfyUI's loaders list this file under, None where it is not there."""
    return local_name(file, folder_paths.get_filename_list(file.folder))


def obtain(node: type[io.ComfyNode], file: HubFile, accept: bool) -> str:
    """The name that ComfyUI's loaders list this file under, after it was fetched where it was missing.

    Raises LicenceError where its licence is not accepted, FetchError where it cannot be fetched.
    """
    name = local_choice(file)
    if name is not None:
        return name
    record = Path(folder_paths.get_system_user_directory("pidkit")) / "licences.json"
    check_licence(file.licence, record, accept=accept, what=file.name, how=HOW)
    licence = LICENCES[file.licence]
    # also where the switch came on with somebody else's workflow
    terms = f"under {licence.name} ({licence.summary}; {licence.page})"
    logging.info(f"PiD: fetching {file.name} from {file.page}, {terms}")
    bar = comfy.utils.ProgressBar(file.size or 1)

    def progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total or done)
        show_on_node(node, f"{done / 1e9:.2f} of {total / 1e9:.2f} GB", terms)

    show_on_node(node, f"fetching {file.name}", terms)
    fetch(file, _folder(file.folder), progress=progress)
    show_on_node(node, "fetched", terms)
    return file.name


def _folder(name: str) -> Path:
    """Where new files of a kind go: the folder of that name, or the first that ComfyUI was given."""
    paths = [Path(path) for path in folder_paths.get_folder_paths(name)]
    return next((path for path in paths if path.name == name), paths[0])


class PiDKitDownload(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitDownload",
            display_name="PiD Download",
            category="PiD/files",
            description="Fetches a model, text encoder or VAE into ComfyUI's models folder, where it is not there yet. "
            "Connect its output to a loader's file input, or run it once alone and press R.",
            search_aliases=["download model", "fetch model", "hugging face"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[file.name for file in FILES],
                    tooltip="What to fetch. PiD and PixelDiT files go into diffusion_models, Gemma and Qwen into "
                    "text_encoders, the rest into vae.",
                ),
                licence_input(),
            ],
            outputs=[
                io.AnyType.Output(
                    display_name="file_name", tooltip="The file's name, for the file input of any loader."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str, accept_licence: bool = False) -> io.NodeOutput:
        return io.NodeOutput(obtain(cls, get_file(file), accept_licence))

    @classmethod
    def fingerprint_inputs(cls, file: str, **_) -> bool:
        # a file that was deleted is fetched again
        return local_choice(get_file(file)) is not None
