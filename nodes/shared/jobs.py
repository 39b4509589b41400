"""The images of one run, and by what a decoded image is known again: everything that its pixels come from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...pid_core.captions.fingerprint import digest
from ...pid_core.latents.sigma_map import SigmaMap
from ..comfy.latent_tags import TAGS, read_tag
from .sigma_maps import sigma_mark

UNFINISHED = "unfinished"  # in the keys of images from a run that failed over another one


class Job(NamedTuple):
    """One image to decode: a LATENT of one image, degrade_sigma (or a map of it), seed of all its noise.

    row: which caption of `Shared.positive` is its own, where that holds more than one. mark: whatever else of this
    image changes the result.
    """

    latent: dict
    sigma: float | SigmaMap
    seed: int
    row: int = 0
    mark: tuple = ()


class Shared(NamedTuple):
    """What the images of one run have in common.

    positive: CONDITIONING of one caption or one per image, or None. windows: how the model's windows are chosen.
    rest: whatever else changes the result.
    """

    model: ModelPatcher
    positive: list | None
    steps: int
    latent_format: str = "auto"
    latent_noise: str = "add"
    windows: Hashable = None
    rest: tuple = ()


def row_of(batch: Tensor, index: int | None) -> Tensor:
    """The one of a batch that belongs to an image; a batch of one belongs to all. None: the whole batch."""
    return batch if index is None or batch.shape[0] == 1 else batch[index : index + 1]


def mark_of(value) -> Hashable:
    """Equal for nested lists, dicts and tensors that hold the same; anything else is only equal to itself."""
    if isinstance(value, Tensor):
        return "tensor", value.dtype, digest(value)
    if isinstance(value, list | tuple):
        return type(value), tuple(map(mark_of, value))
    if isinstance(value, dict):
        return dict, frozenset((repr(key), mark_of(part)) for key, part in value.items())
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return type(value), value
    return _Itself(value)


class _Itself:
    """Equal where it is the same object. Holds it, so that no other object can take its place."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def cache_keys(shared: Shared, jobs: Sequence[Job]) -> tuple[list[tuple], list[tuple]]:
    """What the images are cached by: each job's own key, and that of its image from a run that failed over another."""
    texts = shared.positive
    extras = None if texts is None else tuple(mark_of(extra) for _, extra in texts)
    has_rows = any(caption.shape[0] > 1 for caption, _ in texts or [])
    rows = {}  # hashing a caption takes as long as hashing a latent, and all images may have the same
    keys, unfinished = [], []
    for job in jobs:
        row = job.row if has_rows else 0
        if row not in rows:
            rows[row] = tuple(digest(row_of(caption, row)) for caption, _ in texts or [])
        text = None if texts is None else (rows[row], extras)
        tags = tuple(read_tag(job.latent, key) for key in TAGS)
        own = text, digest(job.latent["samples"]), tags, sigma_mark(job.sigma), job.seed, job.mark
        keys.append((*shared[2:], *own))
        unfinished.append((UNFINISHED, *shared._replace(windows=None)[2:], *own))
    return keys, unfinished
