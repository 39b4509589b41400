"""PiD Caption: a text encoded the way PiD was trained with it."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy.node_text import show_on_node
from .shared.inputs import ABSENT
from .shared.text_encoder import (
    as_conditioning,
    caption_cache,
    clip_is_linked,
    describe_cached,
    linked_caption,
    needed_inputs,
)

NEEDS_CLIP = {  # by whether the cache is on
    False: "clip is not connected and cache is off: connect Load CLIP (type pixeldit) to clip, or turn cache on",
    True: "this text is not in the cache and clip is not connected: connect Load CLIP (type pixeldit) to clip, or use "
    "PiD Load Caption",
}


class PiDKitCaption(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitCaption",
            display_name="PiD Caption",
            category="PiD/sampling",
            description="Encodes a text as NVIDIA's code does: its template around every text, also an empty one, 300 "
            "tokens, no mask. The result is kept on disk: the same text again does not even load the encoder.",
            search_aliases=["pid prompt", "pid text encode", "clip text encode pixeldit", "caption"],
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the picture shows, in plain words. May be empty. About 299 tokens (200 words) fit; "
                    "the rest is left out, and the node says so.",
                ),
                io.Boolean.Input(
                    "cache",
                    default=True,
                    advanced=True,
                    tooltip="Keep the encoded text on disk and use what is kept. Turn off to encode anew.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    lazy=True,
                    tooltip="CLIPLoader with type pixeldit. Loaded only for a text that is not in the cache; without "
                    "it only texts in the cache work.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="caption",
                    tooltip="For PiD Latent Conditioning's positive or negative, and PiD Save Caption.",
                )
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, text: str | None = None, cache: bool | None = None, clip=ABSENT) -> bool | str:
        if clip is not ABSENT or cache is None:
            return True
        if not cache:
            return NEEDS_CLIP[False]
        return True if text is None or caption_cache().find(text) is not None else NEEDS_CLIP[True]

    @classmethod
    def check_lazy_status(cls, text: str, cache: bool, clip=None) -> list[str]:
        return needed_inputs(cls.hidden, clip, text, cache)

    @classmethod
    def execute(cls, text: str, cache: bool, clip=None) -> io.NodeOutput:
        if clip_is_linked(cls.hidden, clip):
            conditioning, line = linked_caption(cls.hidden, clip, text, cache)
            show_on_node(cls, line)
            return io.NodeOutput(conditioning)
        cached = caption_cache().find(text) if cache else None
        if cached is None:
            raise ValueError(NEEDS_CLIP[cache])
        show_on_node(cls, describe_cached(cached))
        return io.NodeOutput(as_conditioning(cached))
