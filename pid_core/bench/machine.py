"""What a report says of the machine: nothing that tells whose it is."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import torch

from ..machine.memory import main_memory
from ..version import pack_version

_PROC = Path("/proc/cpuinfo")
PATIENCE = 10  # seconds for nvidia-smi


def describe_machine(device: torch.device) -> dict[str, str | int | None]:
    """The device and its driver, memory in bytes, and the versions that a time depends on."""
    system = platform.system()
    if system in ("Windows", "Darwin"):  # of Linux the release may hold anything
        system += f" {platform.release()}"
    _, total = main_memory()
    return {
        "device": device.type,
        "name": _name(device),
        "memory": torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total,
        "main_memory": total,
        "driver": _driver(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": f"{system} {platform.machine()}",
        "pidkit": pack_version(),
    }


def _name(device: torch.device) -> str:
    if device.type != "cpu":
        module = getattr(torch, device.type, None)
        tell = getattr(module, "get_device_name", None)
        return device.type if tell is None else tell()
    name = ""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", _PROC.read_text(encoding="utf-8"), re.MULTILINE)
        name = found[1].strip() if found else ""
    except OSError:
        pass
    return name or platform.processor() or platform.machine()


def _driver(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\d[\d.]+", done.stdout)
    return found[0] if found else None
