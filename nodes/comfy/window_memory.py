"""The core's memory model with what ComfyUI knows: what is free on the device, who compiles, what a sampler holds."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management as management
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher

from ...pid_core import PiDConfig, PiDNetwork
from ...pid_core.model.fused import COMPILED, kind_of
from ...pid_core.model.pixel_cache import PixelCache
from ...pid_core.windows.memory import Canvases, MemoryModel, Overhead
from .compiled import is_compiled, is_compiled_by_others


def run_memory(patcher: ModelPatcher, shape: Sequence[int], canvases: Canvases) -> MemoryModel:
    """Of a run of a PiDKitModel on a canvas [B, 3, H, W], whose sampler holds so many canvases."""
    base, (images, _, height, width) = patcher.model, shape
    overhead = Overhead.of(base.config, images, height, width, _dtype_bytes(base), canvases)
    return call_memory(base, patcher, overhead=overhead, **_room(patcher, images))


def memory_of(patcher: ModelPatcher, config: PiDConfig, images: int) -> MemoryModel:
    """Of the run of `images` images that is being loaded, or of its calls alone where none is."""
    base = patcher.model
    if getattr(base, "run_memory", None) is not None:
        return base.run_memory
    if isinstance(base.diffusion_model, PiDNetwork):
        return call_memory(base, patcher, **_room(patcher, images))

    def foreign(images: int, height: int, width: int, cache: PixelCache | None) -> float:
        return base.memory_required([images, 3, height, width])

    size, room = _dtype_bytes(base), _room(patcher, images)
    return MemoryModel(config, patcher.load_device, dtype_bytes=size, foreign=foreign, **room)


def call_memory(base: BaseModel, patcher: ModelPatcher | None, **room) -> MemoryModel:
    """Of single calls of a PiDKitModel; room: other fields of MemoryModel."""
    device = management.get_torch_device() if patcher is None else patcher.load_device
    return MemoryModel(
        base.config,
        device,
        dtype_bytes=_dtype_bytes(base),
        kind=lambda pixels: network_kind(base, patcher, device, pixels),
        **room,
    )


def _room(patcher: ModelPatcher, images: int) -> dict:
    # a last batch that is smaller would be compiled anew
    return {"budget": _free(patcher), "images": images, "one_at_a_time": is_compiled(patcher)}


def network_kind(base: BaseModel, patcher: ModelPatcher | None, device: torch.device, pixels: int) -> str:
    """What runs a PiDKitModel's call on so many pixels, as `cost.peak_bytes` takes it."""
    compiled = base.diffusion_model.driver.compiled
    if patcher is not None and is_compiled_by_others(patcher):
        return COMPILED
    return kind_of(device) if compiled is None or compiled.why_not else compiled.kind_of(device, pixels)


def _free(patcher: ModelPatcher) -> float:
    """Bytes for network calls once the model is loaded: what is free, and what ComfyUI can free of other models."""
    device = patcher.load_device
    free = management.get_free_memory(device)
    if management.is_device_cpu(device):
        return free / 2
    others = [m for m in management.current_loaded_models if m.device == device and m.model is not None]
    room = free + sum(m.model_loaded_memory() for m in others) - management.extra_reserved_memory()
    # where the weights leave less than half, ComfyUI streams them
    return max(room - patcher.model_size(), room / 2)


def _dtype_bytes(base: BaseModel) -> int:
    return management.dtype_size(base.get_dtype_inference())
