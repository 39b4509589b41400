"""A caption of a CLIP of ComfyUI's, type pixeldit. The CLIP is passed in: nothing of ComfyUI is imported."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ..errors import WrongEncoderError
from .text import CAPTION_LENGTH, caption_tokens, check_states

ENCODER = "PixelDiTGemma2TE"  # ComfyUI's class
MASK = "attention_mask"  # PiD takes none


class Encoded(NamedTuple):
    """parts: states [1, 300, W] float32, and what the CLIP says beside; one, where no hooks cut its schedule.

    cut: how many of the text's tokens were left out.
    """

    parts: list[tuple[Tensor, dict]]
    cut: int


def encode_with(clip: Any, name: str, tokenizer: Any, text: str) -> Encoded:
    """The caption as the reference encodes it. name: the encoder's among the CLIP's. tokenizer: its SentencePiece one.

    ComfyUI's own tokenizer call is not used: it drops the template for an empty text and doubles none for a text that
    begins like it, takes `embedding:` and escaped brackets out of the text. The attention mask it would hand on is
    dropped. Raises ValueError in one line. `check_encoder` comes before.
    """
    ids, cut = caption_tokens(lambda part: tokenizer.encode(part, add_bos=True, add_eos=False), text)
    parts = []
    for states, extra in clip.encode_from_tokens_scheduled({name: [[(i, 1.0) for i in ids]]}):
        states = states.float()
        check_states(states)
        if states.shape[1] != CAPTION_LENGTH:
            raise WrongEncoderError(type(clip.cond_stage_model).__name__, states.shape[1], CAPTION_LENGTH)
        parts.append((states, {key: value for key, value in extra.items() if key != MASK}))
    return Encoded(parts, cut)


def check_encoder(clip: Any) -> None:
    """Raise ValueError in one line where the CLIP is none that PiD was trained with."""
    model = type(clip.cond_stage_model)
    if not any(base.__name__ == ENCODER for base in model.__mro__):
        raise WrongEncoderError(model.__name__)
