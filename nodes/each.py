"""Images decoded one by one, each as it would be alone; those that nothing changed for since the last run are kept."""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import latent_preview
import torch
from comfy.cli_args import args
from comfy_execution.utils import get_executing_context
from torch import Tensor

from .conditioning import Conditioned, condition

NODES_KEPT = 4  # nodes whose last images are kept


class Job(NamedTuple):
    """One image to decode: latent [1, C, h, w] (or with a frame axis), degrade_sigma, seed of all its noise.

    row: which caption of `Shared.positive` is its own, where that holds more than one. mark: whatever else of this
    image changes the result.
    """

    latent: Tensor
    sigma: float
    seed: int
    row: int = 0
    mark: Hashable = None


class Shared(NamedTuple):
    """What the images of one run have in common.

    positive: CONDITIONING of one caption or one per image, or None. rest: whatever else changes the result.
    """

    model: object
    positive: list | None
    steps: int
    latent_format: str = "auto"
    add_noise: bool = True
    rest: tuple = ()


class Decoded(NamedTuple):
    """images [N, H, W, 3] in [0, 1], and how many of them the network drew now."""

    images: Tensor
    drawn: int

    @property
    def news(self) -> str:
        """A line for the node."""
        kept = len(self.images) - self.drawn
        return f"{self.drawn} decoded" + (f", {kept} unchanged since the last run" if kept else "")


def decode_each(
    node_id: str | None,
    shared: Shared,
    jobs: Sequence[Job],
    draw: Callable[[int, Conditioned, Callable], Tensor],
) -> Decoded:
    """Decode jobs of one size, in their order. draw(index, conditioned, callback) gives an image [1, H, W, 3].

    node_id: whose images of the last run may be used again and are kept for the next one; None: nobody's.
    """
    kept = _kept_by(node_id, shared)
    keys = [_key(shared, job) for job in jobs]
    steps = len(set(keys) - kept.images.keys()) * shared.steps
    preview = latent_preview.prepare_callback(shared.model, steps)
    images, drawn = [], 0
    with getattr(shared.model.model, "held", contextlib.nullcontext)():
        for index, (job, key) in enumerate(zip(jobs, keys, strict=True)):
            image = kept.take(key)
            if image is None:
                done = drawn * shared.steps

                def callback(step, x0, x, _, done=done):
                    preview(done + step, x0, x, steps)

                image = draw(index, conditioned(shared, job), callback)
                drawn += 1
                kept.put(key, image)
            images.append(image)
    batch = torch.cat(images)
    # Views of the batch that ComfyUI holds anyway, so that keeping them costs no memory.
    for i, key in enumerate(keys):
        kept.put(key, batch[i : i + 1])
    return Decoded(batch, drawn)


def row_of(batch: Tensor, index: int | None) -> Tensor:
    """The one of a batch that belongs to an image; a batch of one belongs to all. None: the whole batch."""
    return batch if index is None or batch.shape[0] == 1 else batch[index : index + 1]


def digest(tensor: Tensor) -> str:
    """32 hexadecimal digits for a tensor's shape and values."""
    values = tensor.detach().float().cpu().contiguous().numpy()
    return hashlib.blake2b(values.tobytes() + repr(values.shape).encode(), digest_size=16).hexdigest()


def conditioned(shared: Shared, job: Job) -> Conditioned:
    """What PiD Latent Conditioning makes of one job."""
    return condition(
        {"samples": job.latent},
        shared.model,
        latent_format=shared.latent_format,
        sigma=job.sigma,
        add_noise=shared.add_noise,
        seed=job.seed,
        positive=_text(shared, job),
    )


def _text(shared: Shared, job: Job) -> list | None:
    if shared.positive is None:
        return None
    return [[row_of(caption, job.row), extras] for caption, extras in shared.positive]


def _key(shared: Shared, job: Job) -> tuple:
    captions = tuple(digest(caption) for caption, _ in _text(shared, job) or [])
    return digest(job.latent), captions, job.sigma, job.seed, job.mark


class _Kept:
    """The images one node made in the last prompt, and those of the current one."""

    def __init__(self):
        self.images: dict[tuple, tuple[Tensor, str | None]] = {}
        self._prompt: str | None = None
        self._model = lambda: None
        self._rest: tuple = ()

    def start(self, prompt: str | None, shared: Shared) -> None:
        """A call of the node begins: forgets what the last prompt did not use, and all where the model changed."""
        if prompt != self._prompt:
            self.images = {key: entry for key, entry in self.images.items() if entry[1] == self._prompt}
            self._prompt = prompt
        if self._model() is not shared.model or not _same(self._rest, shared[1:]):
            self.images.clear()
        # Only the text is held on to; a model that nobody else wants may go.
        self._model, self._rest = weakref.ref(shared.model), shared[1:]

    def take(self, key: tuple) -> Tensor | None:
        if key not in self.images:
            return None
        self.put(key, self.images[key][0])
        return self.images[key][0]

    def put(self, key: tuple, image: Tensor) -> None:
        self.images[key] = image, self._prompt


_nodes: OrderedDict[str, _Kept] = OrderedDict()


def _kept_by(node_id: str | None, shared: Shared) -> _Kept:
    kept = _Kept()
    if node_id is not None and not args.cache_none:
        kept = _nodes.setdefault(node_id, kept)
        _nodes.move_to_end(node_id)
        while len(_nodes) > NODES_KEPT:
            _nodes.popitem(last=False)
    context = get_executing_context()
    kept.start(context.prompt_id if context else None, shared)
    return kept


def _same(a, b) -> bool:
    """Whether nested lists, dicts and tensors hold the same; what cannot be compared must be one and the same."""
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return type(a) is type(b) and isinstance(a, Hashable) and bool(a == b)
