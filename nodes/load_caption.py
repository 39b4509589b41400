"""PiD Load Caption: a caption's file, to decode without a text encoder."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..pid_core.captions.text import read_caption
from .shared.files import CAPTIONS, file_stamp, listed_files, resolve_file
from .shared.text_encoder import as_conditioning


class PiDKitLoadCaption(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitLoadCaption",
            display_name="PiD Load Caption",
            category="PiD/files",
            description="Reads a caption that PiD Save Caption wrote. No text encoder is needed.",
            search_aliases=["load conditioning", "import caption"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=listed_files(CAPTIONS),
                    tooltip=f"A caption file in output/{CAPTIONS.folder} or in the input folder. Press R to refresh "
                    "the list.",
                )
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="caption", tooltip="For PiD Latent Conditioning's positive or negative."
                ),
                io.String.Output(display_name="text", tooltip="The text it was made from, where the file tells."),
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        caption = read_caption(Path(resolve_file(file)))
        return io.NodeOutput(as_conditioning(caption), caption.text)

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> tuple | None:
        return file_stamp(file)
