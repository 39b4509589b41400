"""Images decoded one by one, each as it would be alone; what was drawn before is not drawn again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import comfy.model_management
import latent_preview
import torch
from torch import Tensor

from ...pid_core.errors import NonFiniteError
from ..comfy.progress import expect_runs
from ..comfy.remedies import explain
from .image_cache import image_cache
from .jobs import Job, Shared, cache_keys, row_of
from .lq_conditioning import LQConditioning, condition
from .pictures import present
from .spare import with_less


class Decoded(NamedTuple):
    """images [N, H, W, 3] in [0, 1], and how many of them the network drew now.

    resumed: how many come from a run that failed over another image, which may have had other windows.
    """

    images: Tensor
    drawn: int
    resumed: int = 0

    @property
    def summary(self) -> str:
        """A line for the node."""
        cached = len(self.images) - self.drawn - self.resumed
        line = f"{self.drawn} decoded" + (f", {cached} kept from before" if cached else "")
        return line + (f", {self.resumed} finished in the run that failed" if self.resumed else "")


def decode_each(
    shared: Shared,
    jobs: Sequence[Job],
    draw: Callable[[int, LQConditioning, Callable], Tensor],
    *,
    cache: bool = True,
    condition_at: Callable[[int], LQConditioning] | None = None,
    name_of: Callable[[int], str] | None = None,
    in_need: Callable[[], bool] | None = None,
    node_id: str | None = None,
) -> Decoded:
    """Decode jobs of one size, in their order. draw(index, conditioning, callback) gives an image [1, H, W, 3].

    An image that this or another node drew of the same job with the same model is taken as it is. cache: whether those
    drawn now may be taken later; never those for which in_need says that memory was too short for proper windows.
    condition_at: what PiD Latent Conditioning makes of the job with that index, where it is not `condition_job`.
    Where one fails, the error names it (name_of: what the user calls it), those that are finished are shown on the
    node, and the next run takes them, also with other windows: what had to be changed may have been just that.
    """
    images = _Images(shared, jobs)
    condition_at = condition_at or (lambda index: condition_job(shared, jobs[index]))
    expect_runs(images.missing)
    callback_of = _callbacks(shared, images.missing)
    drawn = 0
    with getattr(shared.model.model, "as_one_run", contextlib.nullcontext)():
        for index in range(len(jobs)):
            image = images.found(index)
            if image is None:
                try:
                    images.put(index, draw(index, condition_at(index), callback_of(drawn)))
                except comfy.model_management.InterruptProcessingException:
                    raise
                except Exception as error:
                    if len(jobs) == 1:
                        raise
                    images.cache_unfinished()
                    name = f"image {index + 1} of {len(jobs)}" if name_of is None else name_of(index)
                    raise _failed(error, name, images.finished, node_id) from error
                drawn += 1
            else:
                images.put(index, image)
            if cache and not (in_need and in_need()):
                images.cache(index)
    images.forget_unfinished()
    return Decoded(images.batch, drawn, images.resumed)


def are_unfinished(shared: Shared, jobs: Sequence[Job]) -> bool:
    """Whether a run that failed left some of these images."""
    return any(image_cache.get(shared.model, key) is not None for key in cache_keys(shared, jobs)[1])


class _Images:
    """The images of one run: those that are cached, and the batch [N, H, W, 3] that all go into, equal ones once.

    missing: how many are to be drawn. resumed: how many a run drew that failed over another image.
    """

    def __init__(self, shared: Shared, jobs: Sequence[Job]):
        self._model = shared.model
        self._keys, self._unfinished = cache_keys(shared, jobs)
        # held here, so that what is drawn now cannot push out what is still needed
        self._found = {key: image for key in self._keys if (image := image_cache.get(self._model, key)) is not None}
        self.resumed = 0
        for key, unfinished in zip(self._keys, self._unfinished, strict=True):
            if key not in self._found and (image := image_cache.get(self._model, unfinished)) is not None:
                self._found[key] = image
                self.resumed += 1
        self.missing = len(set(self._keys) - self._found.keys())
        self.batch = torch.empty(0)  # room is made when the first image tells its size

    @property
    def finished(self) -> list[Tensor]:
        return [self._found[key] for key in self._keys if key in self._found]

    def found(self, index: int) -> Tensor | None:
        return self._found.get(self._keys[index])

    def put(self, index: int, image: Tensor) -> None:
        if not len(self.batch):
            self.batch = _room_for(len(self._keys), image)
        self.batch[index : index + 1] = image
        # a view of the batch, which ComfyUI holds too
        self._found[self._keys[index]] = self.batch[index : index + 1]

    def cache(self, index: int) -> None:
        key = self._keys[index]
        image_cache.put(self._model, key, self._found[key])

    def cache_unfinished(self) -> None:
        for key, unfinished in zip(self._keys, self._unfinished, strict=True):
            if key in self._found:
                image_cache.put(self._model, unfinished, self._found[key])

    def forget_unfinished(self) -> None:
        for key in self._unfinished:
            image_cache.forget(self._model, key)


def _callbacks(shared: Shared, images: int) -> Callable[[int], Callable]:
    """The sampler's callback for the image that so many were drawn before: progress and previews over all of them."""
    total = images * shared.steps
    preview = latent_preview.prepare_callback(shared.model, total)

    def callback_of(drawn: int) -> Callable:
        return lambda step, x0, x, _: preview(drawn * shared.steps + step, x0, x, total)

    return callback_of


def _room_for(count: int, image: Tensor) -> Tensor:
    shape = (count, *image.shape[1:])
    what = f"making room for {count} images of {shape[2]} x {shape[1]}"
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


def condition_job(shared: Shared, job: Job) -> LQConditioning:
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
