"""Images drawn before, for the nodes that would draw them again; they go when their model goes.

ComfyUI drops a model with Free memory, with another workflow, with --cache-none and when memory is short. What it drops
takes its images with it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable
from weakref import WeakKeyDictionary

import comfy.model_management
from comfy.cli_args import args
from torch import Tensor

SHARE = 8  # the images may take one in so many bytes of the memory they lie in


class ImageCache:
    """Images by model and by what they were drawn from.

    most: bytes they may take together, None: a share of the memory. The longest unused go first. Views of one batch
    count as that batch, once.
    """

    def __init__(self, most: int | None = None):
        self._most = most
        self._of_model: WeakKeyDictionary[object, dict[Hashable, tuple[int, Tensor]]] = WeakKeyDictionary()
        self._clock = itertools.count()

    def get(self, model, key: Hashable) -> Tensor | None:
        images = self._of_model.get(model, {})
        if key not in images:
            return None
        image = images[key][1]
        images[key] = next(self._clock), image
        return image

    def put(self, model, key: Hashable, image: Tensor) -> None:
        if args.cache_none:
            return
        self._of_model.setdefault(model, {})[key] = next(self._clock), image
        most = self._most
        if most is None:
            most = comfy.model_management.get_total_memory(image.device) // SHARE
        self._trim(most)

    def forget(self, model, key: Hashable) -> None:
        self._of_model.get(model, {}).pop(key, None)

    def _trim(self, most: int) -> None:
        entries = [
            (used, images, key, image.untyped_storage())
            for images in list(self._of_model.values())
            for key, (used, image) in images.items()
        ]
        views = Counter(storage.data_ptr() for *_, storage in entries)
        total = sum({storage.data_ptr(): storage.nbytes() for *_, storage in entries}.values())
        for _, images, key, storage in sorted(entries, key=lambda entry: entry[0]):
            if total <= most:
                break
            del images[key]
            views[storage.data_ptr()] -= 1
            if not views[storage.data_ptr()]:
                total -= storage.nbytes()


image_cache = ImageCache()


_in_need: Counter[str | None] = Counter()


def drawn_in_need(hidden) -> None:
    """A node's pictures were drawn with too little memory for proper windows. hidden: that of the node's class."""
    _in_need[_node_id(hidden)] += 1


def runs_in_need(hidden) -> int:
    """For fingerprint_inputs: another number after such a run, so that ComfyUI does not give its pictures again."""
    return _in_need[_node_id(hidden)]


def _node_id(hidden) -> str | None:
    return hidden.unique_id if hidden else None
