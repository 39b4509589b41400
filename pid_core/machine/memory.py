"""How much memory is free."""

from __future__ import annotations

import os

import torch

MAIN_SHARE = 0.5  # of what is free of main memory, others need as much


def free_memory(device: torch.device) -> float:
    """Bytes that a decode on this device may plan with."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return main_memory()[0] * MAIN_SHARE


def main_memory() -> tuple[int, int]:
    """Bytes of main memory: free, and all there is. A guess of 8 GB where neither psutil nor the system tells."""
    try:
        import psutil

        memory = psutil.virtual_memory()
        return memory.available, memory.total
    except ImportError:
        pass
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows, macOS
        return 8 * 10**9, 8 * 10**9
