"""Captions: the text PiD is given, as token ids for its encoder, and encoded captions as files.

Source: the reference's text conditioning. The encoder is Gemma-2-2b, used without chat format: TEMPLATE + caption, one
BOS, no EOS, padded to a fixed length. Of the encoder's states PiD takes the first and the last 299, pads included, and
no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import BrokenCaptionError, NoCaptionError, said_of
from ..files import replace_file
from ..printable import printable, quoted
from ..tensor_files import read_metadata, read_tensors

CAPTION_LENGTH = 300  # tokens that reach PiD
PAD = 0

# Data of the trained models: the states behind it depend on every character.
TEMPLATE = "\n".join(
    [
        'Given a user prompt, generate an "Enhanced prompt" that provides detailed visual descriptions suitable for '
        "image generation. Evaluate the level of detail in the user prompt:",
        "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial "
        "relationships to create vivid and concrete scenes.",
        "- If the prompt is already detailed, refine and enhance the existing details slightly without "
        "overcomplicating.",
        "Here are examples of how to transform or refine prompts:",
        "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping "
        "peacefully on a warm sunny windowsill, surrounded by pots of blooming red flowers.",
        "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street "
        "lamps, a diverse crowd of people in colorful clothing, and a double-decker bus passing by towering glass "
        "skyscrapers.",
        "Please generate only the enhanced description for the prompt below and avoid including any additional "
        "commentary or evaluations:",
        "User Prompt: ",
    ]
)

_FORMAT = "pidkit_caption"
_VERSION = "1"
_TENSOR = "caption"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Caption:
    """An encoded caption: states [B, T, W] float32, its text, and what encoded it (fingerprint.py; "" not known).

    cut: how many tokens of the text were left out because they did not fit.
    """

    states: Tensor
    text: str = ""
    encoder: str = ""
    cut: int = 0


def caption_tokens(encode: Callable[[str], list[int]], caption: str) -> tuple[list[int], int]:
    """Token ids for the encoder, and how many tokens of the caption were cut off because they did not fit.

    encode: text -> ids with BOS in front and no EOS. The length is that of TEMPLATE alone plus 298, for every caption.
    Control tokens spelled out in a caption are ordinary text here.
    """
    check_text(caption)
    length = len(encode(TEMPLATE)) + CAPTION_LENGTH - 2
    ids = encode(TEMPLATE + caption)
    cut = max(len(ids) - length, 0)
    return ids[:length] + [PAD] * (length - len(ids)), cut


def check_states(states: Tensor) -> None:
    """Raise ValueError unless this can be a caption: [B, T, W], none of them 0, every value finite."""
    if states.ndim != 3 or 0 in states.shape:
        raise ValueError(f"a caption is [B, tokens, width], this one has shape {list(states.shape)}")
    bad = int((~torch.isfinite(states)).sum())
    if bad:
        raise BrokenCaptionError(bad)


def write_caption(path: Path, caption: Caption, dtype: str = "float32") -> None:
    """Write a caption file in place of what is there. Raises ValueError as `caption_bytes`, or OSError."""
    replace_file(path, caption_bytes(caption, dtype))


def caption_bytes(caption: Caption, dtype: str = "float32") -> bytes:
    """The content of a caption file.

    dtype: "float32", "bfloat16" or "float16". Raises ValueError (unknown dtype, no caption).
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {quoted(dtype)}; choose one of {', '.join(_DTYPES)}")
    check_states(caption.states)
    check_text(caption.text)
    tensors = {_TENSOR: caption.states.detach().to("cpu", _DTYPES[dtype]).contiguous()}
    about = {"text": caption.text, "encoder": caption.encoder, "dtype": dtype, "cut": str(caption.cut)}
    return save(tensors, {"format": _FORMAT, "version": _VERSION} | about)


def read_caption(path: Path) -> Caption:
    """Read a caption file; its states come back as float32.

    Raises FileNotFoundError, or ValueError in one line for a file that is corrupt or no caption of ours.
    """
    path = Path(path)
    # not mapped: the file may be rewritten while the tensor is in use
    tensors, about = read_tensors(path, "caption", only=(_TENSOR,), mapped=False)
    _check_about(path, about, tensors)
    name, states = printable(path.name), tensors[_TENSOR]
    if not states.is_floating_point():
        raise NoCaptionError(name)
    states = states.float()
    try:
        check_states(states)
    except ValueError as error:
        raise said_of(name, error) from None
    cut = about.get("cut", "")
    return Caption(
        states, about.get("text", ""), about.get("encoder", ""), int(cut) if cut.isdecimal() and len(cut) < 9 else 0
    )


def read_caption_about(path: Path) -> dict[str, str]:
    """What a caption file says beside its states: text, encoder, dtype. Raises like `read_caption`."""
    about, names = read_metadata(path, "caption")
    _check_about(Path(path), about, names)
    return about


def _check_about(path: Path, about: Mapping[str, str], names: Collection[str]) -> None:
    name = printable(path.name)
    if about.get("format") != _FORMAT or _TENSOR not in names:
        raise NoCaptionError(name)
    if about.get("version") != _VERSION:
        version = printable(about.get("version"))
        raise ValueError(f"{name} is a caption of version {version}, this pack reads {_VERSION}")


def check_text(text: str) -> None:
    """Raise ValueError in one line for a text with halves of characters, which nothing can encode or write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = printable(text[error.start])
        raise ValueError(f"the text holds half a character ({half}): type it again there") from None
