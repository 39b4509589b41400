"""Images decoded one by one, each as it would be alone; what was drawn before is not drawn again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import NamedTuple

import comfy.model_management
import latent_preview
import torch
from torch import Tensor

from ...pid_core.captions.fingerprint import digest
from ...pid_core.errors import NonFiniteError
from ..comfy.latent_tags import TAGS, read_tag
from ..comfy.progress import expect_runs
from ..comfy.remedies import explain
from .kept import kept_images
from .lq_conditioning import Conditioned, condition
from .pictures import present
from .spare import with_less

UNFINISHED = "unfinished"  # in the keys of images from a run that failed over another one


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
    """images [N, H, W, 3] in [0, 1], and how many of them the network drew now.

    resumed: how many come from a run that failed over another image, which may have had other windows.
    """

    images: Tensor
    drawn: int
    resumed: int = 0

    @property
    def news(self) -> str:
        """A line for the node."""
        kept = len(self.images) - self.drawn - self.resumed
        line = f"{self.drawn} decoded" + (f", {kept} kept from before" if kept else "")
        return line + (f", {self.resumed} finished in the run that failed" if self.resumed else "")


def decode_each(  # noqa: C901
    shared: Shared,
    jobs: Sequence[Job],
    draw: Callable[[int, Conditioned, Callable], Tensor],
    *,
    keep: bool = True,
    made: Callable[[int], Conditioned] | None = None,
    named: Callable[[int], str] | None = None,
    in_need: Callable[[], bool] | None = None,
    node_id: str | None = None,
) -> Decoded:
    """Decode jobs of one size, in their order. draw(index, conditioned, callback) gives an image [1, H, W, 3].

    An image that this or another node drew of the same job with the same model is taken as it is. keep: whether those
    drawn now may be taken later; never those for which in_need says that memory was too short for proper windows.
    made: what PiD Latent Conditioning makes of a job, where it is not `conditioned`.
    Where one fails, the error names it (named: by what the user calls it), those that are finished are shown on the
    node, and the next run takes them, also with other windows: what had to be changed may have been just that.
    """
    keys, unfinished = _keys(shared, jobs)
    # held here, so that what is drawn now cannot push out what is still needed
    found = {key: image for key in keys if (image := kept_images.get(shared.model, key)) is not None}
    resumed = 0
    for key, other in zip(keys, unfinished, strict=True):
        if key not in found and (image := kept_images.get(shared.model, other)) is not None:
            found[key], resumed = image, resumed + 1
    to_draw = len(set(keys) - found.keys())
    expect_runs(to_draw)
    steps = to_draw * shared.steps
    preview = latent_preview.prepare_callback(shared.model, steps)
    batch, drawn = None, 0
    with getattr(shared.model.model, "held", contextlib.nullcontext)():
        for index, key in enumerate(keys):
            image = found.get(key)
            if image is None:
                done = drawn * shared.steps

                def callback(step, x0, x, _, done=done):
                    preview(done + step, x0, x, steps)

                try:
                    image = draw(index, (made or partial(_made, shared, jobs))(index), callback)
                    if batch is None:
                        batch = _room_for(jobs, image)
                except comfy.model_management.InterruptProcessingException:
                    raise
                except Exception as error:
                    if len(jobs) == 1:
                        raise
                    finished = [found[key] for key in keys if key in found]
                    for other, one in zip(unfinished, keys, strict=True):
                        if one in found:
                            kept_images.put(shared.model, other, found[one])
                    name = f"image {index + 1} of {len(jobs)}" if named is None else named(index)
                    raise _failed(error, name, finished, node_id) from error
                drawn += 1
            if batch is None:
                batch = _room_for(jobs, image)
            batch[index : index + 1] = image
            # a view of the batch, which ComfyUI holds too
            found[key] = batch[index : index + 1]
            if keep and not (in_need and in_need()):
                kept_images.put(shared.model, key, found[key])
    for other in unfinished:
        kept_images.forget(shared.model, other)
    return Decoded(batch, drawn, resumed)


def are_unfinished(shared: Shared, jobs: Sequence[Job]) -> bool:
    """Whether a run that failed left some of these images."""
    return any(kept_images.get(shared.model, key) is not None for key in _keys(shared, jobs)[1])


def _made(shared: Shared, jobs: Sequence[Job], index: int) -> Conditioned:
    return conditioned(shared, jobs[index])


def _room_for(jobs: Sequence[Job], image: Tensor) -> Tensor:
    shape = (len(jobs), *image.shape[1:])
    what = f"making room for {len(jobs)} images of {shape[2]} x {shape[1]}"
    return with_less(what, lambda: image.new_empty(shape), lambda: torch.empty(shape, dtype=image.dtype))


def _failed(error: Exception, name: str, finished: list[Tensor], node_id: str | None) -> Exception:
    """The error for the user: which image it was, and what became of the others."""
    line = f"{name}: {explain(error)}"
    if finished:
        shown = present(node_id, finished)
        images = f"the {len(finished)} finished images are" if len(finished) > 1 else "the finished image is"
        line += f". {images[0].upper()}{images[1:]} kept{', shown on the node,' if shown else ''} and not drawn again"
    for kind in (NonFiniteError, ValueError, torch.OutOfMemoryError):
        if isinstance(error, kind):
            return kind(line)
    return RuntimeError(line)


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


def _keys(shared: Shared, jobs: Sequence[Job]) -> tuple[list[tuple], list[tuple]]:
    """What the images are kept by: each job's own key, and that of its image from a run that failed over another."""
    texts = shared.positive
    extras = None if texts is None else tuple(mark_of(extra) for _, extra in texts)
    each_its_own = any(caption.shape[0] > 1 for caption, _ in texts or [])
    rows = {}  # hashing a caption takes as long as hashing a latent, and all images may have the same
    keys, unfinished = [], []
    for job in jobs:
        row = job.row if each_its_own else 0
        if row not in rows:
            rows[row] = tuple(digest(row_of(caption, row)) for caption, _ in texts or [])
        text = None if texts is None else (rows[row], extras)
        tags = tuple(read_tag(job.latent, key) for key in TAGS)
        own = text, digest(job.latent["samples"]), tags, job.sigma, job.seed, job.mark
        keys.append((*shared[2:], *own))
        unfinished.append((UNFINISHED, *shared._replace(windows=None)[2:], *own))
    return keys, unfinished
