"""What the devices that the network runs on can and cannot do."""

from __future__ import annotations

import torch
from torch import Tensor

from ..printable import printable

# Apple's GPUs, Intel's Arc and DirectML have no float64 and raise when a tensor of it reaches them. A device that is
# not known to have it is taken for one of those.
FLOAT64_DEVICES = ("cpu", "cuda")


def widest_float(device: torch.device) -> torch.dtype:
    """float64 where the device has it, else float32."""
    return torch.float64 if device.type in FLOAT64_DEVICES else torch.float32


def to_device(tensor: Tensor, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
    """The tensor in `dtype` on `device`. The dtype is changed first: the device may not have the tensor's own."""
    return tensor.to(dtype).to(device)


def without_float64(tensor: Tensor) -> Tensor:
    """float32 of a float64 tensor, any other as it is: for what others move to the device later."""
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, by default the GPU where there is one. Raises ValueError for one that does not work."""
    if name is None:
        accelerator = getattr(torch, "accelerator", None)  # from PyTorch 2.6 on
        if accelerator is not None and accelerator.is_available():
            return torch.device(accelerator.current_accelerator().type)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        float(torch.zeros((), device=device))
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = printable((str(error).splitlines() or [""])[0], 120)
        raise ValueError(f"device {printable(name)} does not work here ({reason}); leave it out, or use cpu") from None
    return device


def usual_dtype(device: torch.device) -> torch.dtype:
    """The compute dtype where nobody says which: float32 on a CPU, bfloat16 on GPUs that multiply in it, else half."""
    if device.type == "cpu":
        return torch.float32
    short = device.type == "mps" or (device.type == "cuda" and not torch.cuda.is_bf16_supported())
    return torch.float16 if short else torch.bfloat16


def usual_dtype_bytes(device: torch.device) -> int:
    """Bytes of the compute dtype where nobody says which: float32 on a CPU, a half everywhere else."""
    return 4 if device.type == "cpu" else 2
