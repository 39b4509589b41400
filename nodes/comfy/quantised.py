"""Quantised checkpoints through ComfyUI's own operations: what it can run, and a weight's plain values."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.ops
import comfy.quant_ops
import comfyui_version
import torch
from torch import Tensor

from ...pid_core.checkpoints.quantised import Layers, formats_of
from .comfy_internals import can_run_quantised, quantised_linear, takes_quantised

QUANT_CONFIG = {"mixed_ops": True}  # what ComfyUI's loaders set for a file with quantised layers


def check_formats(layers: Layers) -> None:
    """Raise ValueError in one line where this ComfyUI cannot run a format that occurs."""
    if not can_run_quantised():
        raise ValueError(
            "the file's weights are quantised, which needs the Python package comfy-kitchen: install ComfyUI's "
            "requirements again, or use the bf16 file"
        )
    lacking = [name for name in formats_of(layers) if name not in comfy.quant_ops.QUANT_ALGOS]
    if lacking:
        raise ValueError(
            f"the file's weights are quantised as {', '.join(lacking)}, which ComfyUI {comfyui_version.__version__} "
            f"cannot run (it can {', '.join(comfy.quant_ops.QUANT_ALGOS)}): update ComfyUI, or use the bf16 file"
        )


def dequantise(weight: Tensor, side: Mapping[str, Tensor]) -> Tensor:
    """A layer's weight as plain float32 values. side: its tensors in `Checkpoint.quantised`."""
    check_formats({"": dict(side)})
    layer = quantised_linear(weight.shape)
    layer.load_state_dict({"weight": weight, **side}, strict=False)
    return layer.weight.dequantize()


def without_memory(operations, network_dtype: torch.dtype):
    """The same operations for a network of that dtype that is built on the meta device; others than mixed ones as is.

    ComfyUI's Linear for quantised layers puts the file's weights where it was built, and takes its dtype from the
    file: so it is built on the CPU (it holds no weight before), and where float32 is asked for beside another dtype,
    an ordinary Linear takes its place.
    """
    if not takes_quantised(operations):
        return operations

    class Operations(operations):
        @staticmethod
        def Linear(*sizes, dtype=None, device=None, **options):
            if dtype == torch.float32 != network_dtype:
                return comfy.ops.manual_cast.Linear(*sizes, dtype=dtype, device=device, **options)
            return operations.Linear(*sizes, dtype=dtype, **options)

    return Operations
