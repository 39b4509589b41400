"""A stand-in for a GPU that the real ComfyUI samples on: what it holds, and how often the host waits for it."""

from __future__ import annotations

import contextlib
import importlib
import sys
import weakref
from collections import Counter
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

import comfy_env
from support.narrow_device import DEVICE, NarrowDevice, OnDevice, attend_plainly

WAITING = ("_local_scalar_dense", "item", "equal", "is_nonzero")
WAITING += ("nonzero", "masked_select", "repeat_interleave", "_unique2")  # whose size depends on values
COPIES = ("_to_copy", "to", "copy_")
PACK = tuple(str(comfy_env.ROOT / folder) for folder in ("nodes", "pid_core"))


class Waits(NarrowDevice):
    """While it lasts DEVICE exists; `ours` and `others` count where its values are asked for or copied to or from it.

    A copy from a main memory that is not pinned waits as well as one to it.
    """

    def __init__(self):
        super().__init__()
        self.ours, self.others = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        places = {type(t) is OnDevice for t in tree_leaves((args, out)) if isinstance(t, torch.Tensor)}
        name = func._schema.name.split("::")[1]
        if (name in WAITING and True in places) or (name in COPIES and len(places) == 2):
            self._count()
        return out

    def _count(self) -> None:
        frame = sys._getframe(2)
        while "site-packages" in frame.f_code.co_filename or frame.f_code.co_filename == __file__:
            frame = frame.f_back
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
        (self.ours if frame.f_code.co_filename.startswith(PACK) else self.others)[place] += 1


class DeviceBytes(NarrowDevice):
    """While it lasts DEVICE exists; `now` and `peak` are the bytes that live there."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        for storage in (t.values_.untyped_storage() for t in tree_leaves(out) if type(t) is OnDevice):
            if storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, storage._cdata)
        return out

    def _freed(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def load_on_card(comfyui, monkeypatch):
    """A function that puts a model on DEVICE; what ComfyUI would ask a driver for is answered here."""
    sampling = importlib.import_module("comfy.k_diffusion.sampling")
    student, network = comfyui.module("nodes.comfy.student"), comfyui.module("nodes.comfy.network")
    # no generator draws there
    noise = lambda x, seed=None: lambda *_, like=x: torch.full(like.shape, 0.1, device=like.device)  # noqa: E731
    for module in (sampling, student):
        monkeypatch.setattr(module, "default_noise_sampler", noise)
    monkeypatch.setattr(comfyui.management, "load_models_gpu", lambda *a, **k: None)
    monkeypatch.setattr(comfyui.management, "get_free_memory", lambda *a, **k: 1e12)
    monkeypatch.setattr(
        comfyui.management, "cuda_device_context", lambda device: contextlib.nullcontext(), raising=False
    )
    # its tensors do not carry values that stand elsewhere
    monkeypatch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad())
    monkeypatch.setattr(network, "_attention_for", lambda device: None)
    monkeypatch.setattr(network, "attend", attend_plainly)
    monkeypatch.setattr(network, "_nothing_chosen", lambda device: True)

    def load(patcher):
        patcher.load_device = DEVICE
        with torch.no_grad():
            patcher.model.to(DEVICE)
        return patcher

    return load
