"""PiD Save Caption: an encoded caption as a file."""

from __future__ import annotations

from comfy_api.latest import io

from ..pid_core.captions.text import Caption, caption_bytes
from .shared.files import CAPTIONS, save_new


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
                    default=f"{CAPTIONS.folder}/PiD",
                    tooltip="Name in ComfyUI's output folder; a number is added. PiD Load Caption lists what is in "
                    f"output/{CAPTIONS.folder}.",
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
        saved = Caption(states, about.get("text", ""), about.get("encoder", ""), about.get("cut", 0))
        entry = save_new(filename_prefix, CAPTIONS, caption_bytes(saved, dtype))
        return io.NodeOutput(ui={"captions": [entry]})
