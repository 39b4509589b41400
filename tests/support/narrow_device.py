"""A device without float64, on any machine: tensors that say they are elsewhere, compute on the CPU, and raise
where float64 reaches them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")  # one that PyTorch asks no driver about; to our code it is a name like any other


class OnDevice(Tensor):
    """values: the tensor on the CPU that stands behind it."""

    @staticmethod
    def __new__(cls, values: Tensor) -> OnDevice:
        if values.dtype == torch.float64:
            raise TypeError(f"{DEVICE} has no float64")
        wrapper = Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), dtype=values.dtype, device=DEVICE
        )
        wrapper.values_ = values
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} was called outside NarrowDevice")


class NarrowDevice(TorchDispatchMode):
    """While it lasts, DEVICE exists. `ran` counts the operations that ran there."""

    def __init__(self):
        super().__init__()
        self.ran = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        args_here, kwargs_here = tree_map(_on_cpu, (args, kwargs))
        there = device == DEVICE or (device is None and _any_there((args, kwargs)))
        out = func(*args_here, **kwargs_here)
        if func.__name__.startswith(("_local_scalar_dense", "is_nonzero")) or not there:
            return out
        self.ran += 1
        if func._schema.is_mutable:
            return args[0]
        return tree_map(lambda value: OnDevice(value) if isinstance(value, Tensor) else value, out)


def _on_cpu(value):
    if isinstance(value, OnDevice):
        return value.values_
    return torch.device("cpu") if isinstance(value, torch.device) and value == DEVICE else value


def _any_there(values) -> bool:
    found = []
    tree_map(lambda value: found.append(isinstance(value, OnDevice)), values)
    return any(found)


def attend_plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in operations that every device has: PyTorch's own asks the real device."""
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
