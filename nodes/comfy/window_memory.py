"""How much memory context windows may plan with."""

from __future__ import annotations

import comfy.model_management as management
from comfy.model_patcher import ModelPatcher

from ...pid_core.model.pixels import KEEPINGS, Kept
from ...pid_core.windows.plan import WindowPlan
from .compiled import is_compiled

# On the CPU more windows at once gain no speed and only take memory.
CPU_BATCH_BYTES = 1e9
# A window of this many pixels fills a card: several at once move more bytes and take more memory.
FILLING_PIXELS = 1024**2


def window_memory(patcher: ModelPatcher) -> float:
    """Bytes for network calls once the model is loaded: what is free, and what ComfyUI can free of other models."""
    device = patcher.load_device
    free = management.get_free_memory(device)
    if management.is_device_cpu(device):
        return free / 2
    others = [m for m in management.current_loaded_models if m.device == device and m.model is not None]
    room = free + sum(m.model_loaded_memory() for m in others) - management.extra_reserved_memory()
    # where the weights leave less than half, ComfyUI streams them
    return max(room - patcher.model_size(), room / 2)


def needed_memory(patcher: ModelPatcher, shape: list[int], kept: Kept | None) -> float:
    """Bytes of a network call on images [B, 3, H, W]; kept: between the pixel blocks, of a model of ours."""
    ask = getattr(patcher.model, "memory_for", None)
    return patcher.model.memory_required(shape) if ask is None else ask(shape, kept)


def fitting_kept(patcher: ModelPatcher, shape: list[int]) -> Kept:
    """The most that the memory allows to keep between pixel blocks in a network call on images [B, 3, H, W]."""
    budget = window_memory(patcher)
    return next((kept for kept in KEEPINGS if needed_memory(patcher, shape, kept) <= budget), KEEPINGS[-1])


def fitting_batch(patcher: ModelPatcher, plan: WindowPlan, images: int) -> int:
    """How many windows of `images` images each to run at once; 1 where not even one is sure to fit.

    1 for a compiled network too: a last batch that is smaller would be compiled anew.
    """
    if is_compiled(patcher):
        return 1

    def needed(windows: int) -> float:
        # twice: positive and negative may run together
        return needed_memory(patcher, [2 * windows * images, 3, *plan.size], plan.kept)

    budget = window_memory(patcher)
    if management.is_device_cpu(patcher.load_device):
        budget = min(budget, needed(1) + CPU_BATCH_BYTES)
    elif plan.size[0] * plan.size[1] * images >= FILLING_PIXELS:
        return 1
    count = 1
    while count < plan.count and needed(count + 1) <= budget:
        count += 1
    return count
