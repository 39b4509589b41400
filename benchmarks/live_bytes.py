"""How much memory tensors take, of any device or without values."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Adds up the storages alive that were made inside, and keeps the largest sum.

    outside: tensors that do not count.
    """

    def __init__(self, outside: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0
        self.ignore(outside)

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        self.sizes |= {tensor.untyped_storage()._cdata: 0 for tensor in tensors}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.sizes:
                storage = tensor.untyped_storage()
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.free, storage._cdata)
        return result

    def free(self, key):
        self.now -= self.sizes.pop(key)
