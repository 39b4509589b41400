"""One value per picture, kept with the picture: through a changed order, through pictures that come and go."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..printable import quoted

if TYPE_CHECKING:  # batch --dry-run does without PyTorch, which takes half a gigabyte
    from torch import Tensor

ID_LENGTH = 16


def picture_id(image: Tensor) -> str:
    """16 hexadecimal digits that tell pictures [H, W, C] in [0, 1] apart by what they show, to 8 bits per channel."""
    import torch

    levels = (torch.nan_to_num(image.detach().float().cpu()).clamp(0, 1) * 255).round().byte().contiguous()
    digest = hashlib.blake2b(repr(tuple(levels.shape)).encode(), digest_size=ID_LENGTH // 2)
    digest.update(levels.numpy().tobytes())
    return digest.hexdigest()


def parse_numbers(text: str | float | Sequence[float], name: str = "sigmas") -> list[float]:
    """A list of numbers, however it arrives: a list, a number, "0.1, 0.5" or "[0.1, 0.5]". Empty text is no number.

    Raises ValueError naming the input when something is not a finite number.
    """
    if isinstance(text, str):
        parts = [part for part in re.split(r"[\s,;]+", text.strip().strip("[]")) if part]
    else:
        parts = [text] if isinstance(text, int | float) else list(text)
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be numbers with commas between, such as 0.1, 0.5; got {quoted(text)}")
    return numbers


def parse_sigmas(text: str | float | Sequence[float], name: str = "sigmas") -> list[float]:
    """`parse_numbers`, each from 0 to 1. Raises ValueError naming the input and the value."""
    numbers = parse_numbers(text, name)
    for number in numbers:
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must be between 0 and 1 each, got {number:g}")
    return numbers


def parse_ids(text: str | Sequence[str]) -> list[str]:
    """Picture ids from a list or from text."""
    return re.findall(rf"\b[0-9a-f]{{{ID_LENGTH}}}\b", text if isinstance(text, str) else json.dumps(list(text)))


def match_values(values: Sequence[float], ids: Sequence[str], batch: Sequence[str], default: float) -> list[float]:
    """The values for the pictures `batch` (ids), where `values` were set for the pictures `ids`.

    A picture keeps its value wherever it stands now; equal pictures are told apart by their order; a new picture gets
    `default`. Without ids the values go by position; no value at all means `default` for every picture.
    Raises ValueError when counts do not fit, because values must never end up at another picture.
    """
    if not ids:
        if len(values) not in (0, len(batch)):
            raise ValueError(
                f"sigmas has {len(values)} values, the batch holds {len(batch)} images: give one per image, or none"
            )
        return list(values) or [default] * len(batch)
    if len(ids) != len(values):
        raise ValueError(
            f"sigmas has {len(values)} values for {len(ids)} pictures: empty sigmas and pictures, then set them again"
        )
    waiting = defaultdict(list)
    for picture, value in zip(ids, values, strict=True):
        waiting[picture].append(value)
    return [waiting[picture].pop(0) if waiting[picture] else default for picture in batch]
