"""The noise of PiD Decode's runs: ComfyUI's own for a seed, drawn once where a seed serves several images."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import comfy.sample
import torch
from torch import Tensor

from ...pid_core.windows.plan import Window

LARGEST_KEPT = 256 << 20  # bytes; larger noise is drawn again

_last: WeakKeyDictionary[object, tuple[tuple, Tensor]] = WeakKeyDictionary()


def first_noise(model, shape: tuple[int, ...], seed: int) -> Tensor:
    """ComfyUI's first noise [B, 3, H, W] for a seed, on the CPU. Not to be written to.

    Drawing takes a seventh of a decode at 2048 x 2048 on a fast card, and a folder of pictures or a sweep is drawn
    with one seed: the model's last noise is kept, until another seed or
    size, or until the model goes.
    """
    key, last = (shape, seed), _last.get(model.model)
    if last is not None and last[0] == key:
        return last[1]
    noise = comfy.sample.prepare_noise(torch.empty(shape, device="meta"), seed)
    _last.pop(model.model, None)
    if noise.nbytes <= LARGEST_KEPT:
        _last[model.model] = key, noise
    return noise


class BatchNoise:
    """The noise of a whole batch [B, 3, H, W], for images of it that are drawn one by one."""

    def __init__(self, model, shape: tuple[int, ...], seed: int):
        self.shape, self.seed = shape, seed
        self.first = first_noise(model, shape, seed)

    def of(self, index: int) -> RowNoise:
        return RowNoise(self, index)


class RowNoise:
    """The noise of one image of a batch, in one run."""

    def __init__(self, batch: BatchNoise, index: int):
        self._batch, self._row = batch, slice(index, index + 1)
        self._generator: torch.Generator | None = None

    @property
    def first(self) -> Tensor:
        return self._batch.first[self._row]

    def at_step(self, sigma: Tensor, _) -> Tensor:
        """For re-noising; as ComfyUI's own sampler draws it for the whole batch."""
        if self._generator is None:
            self._generator = step_generator(self._batch.seed, sigma.device)
        noise = torch.randn(self._batch.shape, generator=self._generator, device=sigma.device)
        return noise[self._row].clone()


class PartNoise:
    """The noise of a rectangle of a canvas [B, 3, H, W], in one run: what a run of the whole canvas has there."""

    def __init__(self, model, shape: tuple[int, ...], seed: int, window: Window):
        self._shape, self._seed, self._window = shape, seed, window
        self._generator: torch.Generator | None = None
        self.first = self._cut(first_noise(model, shape, seed))

    def at_step(self, sigma: Tensor, _) -> Tensor:
        """For re-noising; as ComfyUI's own sampler draws it for the whole canvas."""
        self._generator = self._generator or step_generator(self._seed, sigma.device)
        return self._cut(torch.randn(self._shape, generator=self._generator, device=sigma.device))

    def _cut(self, noise: Tensor) -> Tensor:
        rows, cols = self._window.slices()
        return noise[..., rows, cols].clone()


def step_generator(seed: int, device: torch.device) -> torch.Generator:
    """What ComfyUI draws the noise of the later steps from: on the CPU the first noise already used this seed."""
    return torch.Generator(device).manual_seed(seed + 1 if device.type == "cpu" else seed)
