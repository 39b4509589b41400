"""Captions from ComfyUI's text encoder, with the cache on disk: what PiD Caption and PiD Decode share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import folder_paths

from ...pid_core.captions.cache import CaptionCache
from ...pid_core.captions.clip import check_encoder, encode_with
from ...pid_core.captions.fingerprint import fingerprint
from ...pid_core.captions.text import Caption
from ...pid_core.hub.catalogue import get_file
from ...pid_core.log import log
from ..comfy.comfy_internals import caption_tokenizer, is_patched
from .known_files import local_choice

CACHE_MB = "PIDKIT_CAPTION_CACHE_MB"  # environment variable; 0 turns the cache off
FOLDERS = ("text_encoders", "clip_gguf")  # the second is what the GGUF pack registers
TYPE = "pixeldit"


def caption_cache() -> CaptionCache:
    """The cache in ComfyUI's user folder, out of reach of its HTTP interface."""
    folder = Path(folder_paths.get_system_user_directory("pidkit")) / "captions"
    text = os.environ.get(CACHE_MB, "")
    return CaptionCache(folder, (int(text) if text.isdecimal() else 512) * 1_000_000)


def clip_is_linked(hidden, clip) -> bool:
    """Whether the running node's clip is connected; it is lazy, and so may be None all the same."""
    link = _inputs(hidden).get("clip")
    return clip is not None or isinstance(link, list)


def cached_caption(hidden, text: str) -> Caption | None:
    """The caption in the cache; where no clip is connected, whatever encoded it."""
    if not clip_is_linked(hidden, None):
        return caption_cache().find(text)
    encoder = _encoder_of(hidden)
    return caption_cache().get(encoder, text) if encoder else None


def needed_inputs(hidden, clip, text: str, use_cache: bool = True) -> list[str]:
    """For check_lazy_status: clip where it is connected and the text must be encoded."""
    unknown = clip is None and clip_is_linked(hidden, clip)
    return ["clip"] if unknown and not (use_cache and cached_caption(hidden, text)) else []


def linked_caption(hidden, clip, text: str, use_cache: bool = True) -> tuple[list, str]:
    """CONDITIONING of a text where clip is connected, from the cache or encoded and kept; and a line for the node."""
    encoder = _encoder_of(hidden)
    cache = caption_cache() if use_cache else None
    cached = cache.get(encoder, text) if cache and encoder else None
    if cached is not None:
        return as_conditioning(cached), describe_cached(cached)
    conditioning, cut = encode_caption(clip, text, encoder, cache)
    return conditioning, warn_of_cut(cut) or "caption encoded"


def caption_problem(text: str, clip: bool, positive: bool) -> str | None:
    """What is wrong with the three ways to give a text; clip, positive: whether they are connected."""
    if clip and positive:
        return "both positive and clip are connected: positive is a text already, take one of them away"
    if text.strip() and not clip and not positive:
        return "text is set, but clip is not connected: connect Load CLIP (type pixeldit) to clip, or empty text"
    return None


def caption_of(hidden, positive: list | None, clip, text: str) -> tuple[list | None, list[str]]:
    """The conditioning of the text, or None where nothing is connected; and lines for the node."""
    linked = clip_is_linked(hidden, clip)
    problem = caption_problem(text, linked, positive is not None)
    if problem is not None:
        raise ValueError(problem)
    if not linked:
        return positive, []
    conditioning, line = linked_caption(hidden, clip, text)
    return conditioning, [line]


def _inputs(hidden) -> Mapping:
    """The running node's inputs as the graph has them; empty outside a run."""
    if not (hidden and hidden.dynprompt):
        return {}
    return hidden.dynprompt.get_node(hidden.unique_id)["inputs"]


def _encoder_of(hidden) -> str:
    """Fingerprint of the encoder file behind the running node's clip, without loading it; "" where it cannot be told.

    It can where the link comes straight from a loader of one file (CLIPLoader). With a LoRA or a merge in between, the
    file alone does not say what the encoder will be.
    """
    link = _inputs(hidden).get("clip")
    if not isinstance(link, list):
        return ""
    inputs: Mapping = hidden.dynprompt.get_node(link[0])["inputs"]
    name = _file_name(hidden.dynprompt, inputs.get("clip_name"))
    pure = not any(isinstance(value, list) for key, value in inputs.items() if key != "clip_name")
    if not (pure and name and inputs.get("type") == TYPE):
        return ""
    for folder in FOLDERS:
        path = folder_paths.get_full_path(folder, name) if folder in folder_paths.folder_names_and_paths else None
        if path is not None:
            return fingerprint(path)
    return ""


def _file_name(graph, value) -> str | None:
    """A loader's file name: what stands in it, or what PiD Download puts there."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else None
    source = graph.get_node(value[0])
    file = source["inputs"].get("file") if source["class_type"] == "PiDKitDownload" else None
    return local_choice(get_file(file)) if isinstance(file, str) else None


def encode_caption(clip, text: str, encoder: str = "", cache: CaptionCache | None = None) -> tuple[list, int]:
    """CONDITIONING of a caption as the reference encodes it, and how many of its tokens were cut off.

    encoder, cache: keeps the result, unless the encoder was patched (a LoRA) after it was loaded.
    """
    if clip is None:
        raise ValueError("the text encoder is missing, its loader gave none: connect Load CLIP (type pixeldit) to clip")
    check_encoder(clip)
    parts, cut = encode_with(clip, *caption_tokenizer(clip), text)
    encoder = "" if is_patched(clip) else encoder
    conditioning = [[states, extra | {"pidkit_caption": _about(text, encoder, cut)}] for states, extra in parts]
    if cache is not None and len(parts) == 1:
        cache.put(Caption(parts[0][0], text, encoder, cut))
    return conditioning, cut


def as_conditioning(caption: Caption) -> list:
    about = _about(caption.text, caption.encoder, caption.cut)
    return [[caption.states, {"pooled_output": None, "pidkit_caption": about}]]


def _about(text: str, encoder: str, cut: int) -> dict:
    """What a conditioning says of its caption, for PiD Save Caption."""
    return {"text": text, "encoder": encoder} | ({"cut": cut} if cut else {})


def describe_cached(caption: Caption) -> str:
    """The line for a node whose caption came from the cache."""
    return "; ".join(line for line in ("caption from the cache", warn_of_cut(caption.cut)) if line)


def warn_of_cut(cut: int) -> str:
    """Logs that a caption was too long; the text to show on the node, "" where nothing was cut."""
    if not cut:
        return ""
    warning = f"the caption is too long: its last {cut} tokens are left out"
    log.warning("%s", warning)
    return warning
