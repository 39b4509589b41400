"""PiD Save Caption, PiD Load Caption: encoded captions as files, to decode without a text encoder."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..pid_core.captions.text import Caption, caption_bytes, read_caption
from .shared.files import file_stamp, listed_files, resolve_file, save_new
from .shared.text_encoder import as_conditioning

FOLDER, ENDING = "captions", ".safetensors"


class PiDKitSaveCaption(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitSaveCaption",
            display_name="PiD Save Caption",
            category="PiD/files",
            description="Writes an encoded caption to a file. With PiD Load Caption it works without the text encoder, "
            "on another machine too.",
            search_aliases=["save conditioning", "export caption"],
            is_output_node=True,
            inputs=[
                io.Conditioning.Input("caption", tooltip="From PiD Caption, or any other encoded text."),
                io.String.Input(
                    "filename_prefix",
                    default=f"{FOLDER}/PiD",
                    tooltip="Name in ComfyUI's output folder; a number is added. PiD Load Caption lists what is in "
                    f"output/{FOLDER}.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["float32", "bfloat16"],
                    default="float32",
                    advanced=True,
                    tooltip="float32 gives back exactly what was encoded (2.8 MB). bfloat16 is half that, and the "
                    "precision of NVIDIA's own encoder.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, caption: list, filename_prefix: str, dtype: str) -> io.NodeOutput:
        if len(caption) != 1:
            raise ValueError(
                f"caption holds {len(caption)} conditionings; a file holds one: save them before they are combined"
            )
        states, extra = caption[0]
        about = extra.get("pidkit_caption", {})
        kept = Caption(states, about.get("text", ""), about.get("encoder", ""), about.get("cut", 0))
        entry = save_new(filename_prefix, ENDING, caption_bytes(kept, dtype))
        return io.NodeOutput(ui={"captions": [entry]})


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
                    options=listed_files(FOLDER, ENDING),
                    tooltip=f"A caption file in output/{FOLDER} or in the input folder. Press R to refresh the list.",
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
