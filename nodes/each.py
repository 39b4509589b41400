"""Images decoded one by one, each as it would be alone; what was drawn before is not drawn again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import latent_preview
from torch import Tensor

from ..pid_core.fingerprint import digest
from .conditioning import Conditioned, condition
from .kept import kept_images
from .latent_tags import TAGS, read_tag
from .progress import expect_runs


class Job(NamedTuple):
    """One image to decode: a LATENT of one image, degrade_sigma, seed of all its noise.

    row: which caption of `Shared.positive` is its own, where that holds more than one. mark: whatever else of this
    image changes the result.
    """

    latent: dict
    sigma: float
    seed: int
    row: int = 0
    mark: tuple = ()


class Shared(NamedTuple):
    """What the images of one run have in common.

    positive: CONDITIONING of one caption or one per image, or None. windows: how the model's windows are chosen.
    rest: whatever else changes the result.
    """

    model: object
    positive: list | None
    steps: int
    latent_format: str = "auto"
    latent_noise: str = "add"
    windows: Hashable = None
    rest: tuple = ()


class Decoded(NamedTuple):
    """images [N, H, W, 3] in [0, 1], and how many of them the network drew now."""

    images: Tensor
    drawn: int

    @property
    def news(self) -> str:
        """A line for the node."""
        kept = len(self.images) - self.drawn
        return f"{self.drawn} decoded" + (f", {kept} kept from before" if kept else "")


def decode_each(
    shared: Shared,
    jobs: Sequence[Job],
    draw: Callable[[int, Conditioned, Callable], Tensor],
    *,
    keep: bool = True,
) -> Decoded:
    """Decode jobs of one size, in their order. draw(index, conditioned, callback) gives an image [1, H, W, 3].

    An image that this or another node drew of the same job with the same model is taken as it is. keep: whether those
    drawn now may be taken later.
    """
    extras = None if shared.positive is None else [mark_of(extra) for _, extra in shared.positive]
    keys = [_key(shared, job, extras) for job in jobs]
    # held here, so that what is drawn now cannot push out what is still needed
    found = {key: image for key in keys if (image := kept_images.get(shared.model, key)) is not None}
    to_draw = len(set(keys) - found.keys())
    expect_runs(to_draw)
    steps = to_draw * shared.steps
    preview = latent_preview.prepare_callback(shared.model, steps)
    batch, drawn = None, 0
    with getattr(shared.model.model, "held", contextlib.nullcontext)():
        for index, (job, key) in enumerate(zip(jobs, keys, strict=True)):
            image = found.get(key)
            if image is None:
                done = drawn * shared.steps

                def callback(step, x0, x, _, done=done):
                    preview(done + step, x0, x, steps)

                image = draw(index, conditioned(shared, job), callback)
                drawn += 1
            if batch is None:
                batch = image.new_empty((len(jobs), *image.shape[1:]))
            batch[index : index + 1] = image
            # a view of the batch, which ComfyUI holds too
            found[key] = batch[index : index + 1]
            if keep:
                kept_images.put(shared.model, key, found[key])
    return Decoded(batch, drawn)


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


def conditioned(shared: Shared, job: Job) -> Conditioned:
    """What PiD Latent Conditioning makes of one job."""
    return condition(
        job.latent,
        shared.model,
        latent_format=shared.latent_format,
        sigma=job.sigma,
        latent_noise=shared.latent_noise,
        seed=job.seed,
        positive=_text(shared, job),
    )


def _text(shared: Shared, job: Job) -> list | None:
    if shared.positive is None:
        return None
    return [[row_of(caption, job.row), extras] for caption, extras in shared.positive]


def _key(shared: Shared, job: Job, extras: list | None) -> tuple:
    captions = tuple(digest(caption) for caption, _ in _text(shared, job) or [])
    text = None if extras is None else (captions, tuple(extras))
    tags = tuple(read_tag(job.latent, key) for key in TAGS)
    return *shared[2:], text, digest(job.latent["samples"]), tags, job.sigma, job.seed, job.mark
