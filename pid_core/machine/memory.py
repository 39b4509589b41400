"""How much memory is free."""

from __future__ import annotations

import os

import torch


def free_memory(device: torch.device) -> float:
    """Bytes that a decode on this device may plan with; on the CPU half of what is free, which others need too."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        import psutil

        return psutil.virtual_memory().available / 2
    except ImportError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2
    except (AttributeError, ValueError, OSError):  # Windows, macOS
        return 4e9
