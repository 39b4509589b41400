"""PiD Download: a known file, fetched into ComfyUI's model folders."""

from __future__ import annotations

from comfy_api.latest import io

from ..pid_core.hub.catalogue import FILES, get_file
from .shared.known_files import generation, licence_input, not_accepted, not_listed, obtain


class PiDKitDownload(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitDownload",
            display_name="PiD Download",
            category="PiD/files",
            description="Fetches a model, text encoder, VAE or encoder into ComfyUI's models folder, where it is not "
            "there yet. Connect its output to a loader's file input, or run it once alone and press R.",
            search_aliases=["download model", "fetch model", "hugging face"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[file.name for file in FILES],
                    tooltip="What to fetch. PiD and PixelDiT files go into diffusion_models, Gemma and Qwen into "
                    "text_encoders, the files of PiD RAE Encode into clip_vision, the rest into vae.",
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
        return io.NodeOutput(*obtain(cls, [get_file(file)], accept_licence))

    @classmethod
    def validate_inputs(cls, file: str | None = None, accept_licence: bool | None = False) -> bool | str:
        if file is None:
            return True
        return not_listed(cls, "file", file) or not_accepted([get_file(file)], accept_licence) or True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **_) -> int | None:
        # a file that was deleted is fetched again; a name that comes by a link is not known yet
        return None if file is None else generation(get_file(file))
