"""Is this machine ready: versions, device, files, workflows, the plan for a 4K picture, and one decode to prove it.

The report holds nothing private: no paths, no user or host name, no values of environment variables.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ..assets import NANO_PATH
from ..checkpoints.reading import load_network
from ..errors import one_line
from ..model.attention import chosen_kernels, fastest_sdpa
from ..model.config import RELEASED
from ..model.devices import usual_dtype_bytes
from ..model.fused import why_not
from ..printable import printable
from ..sampling.decode import decode, decode_memory
from ..version import pack_version
from ..windows.plan import OVERLAP, NoPlanError
from .comfy_home import Home
from .inventory import find_models, workflow_needs
from .memory import MAIN_SHARE, main_memory

CANVAS = 4096
V15 = RELEASED["v1.5"]  # the plan is worked out for it
V15_PARAMETERS = 1_400_199_315
_PATH = re.compile(r"(?:[A-Za-z]:)?[/\\](?:[^/\\]+[/\\])+")  # all of a path but the file's name
_VARIABLES = ("COMFYUI_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def examine(home: Home | None) -> dict:
    """Everything `doctor` shows, as plain values for JSON. home: ComfyUI's folders, None where none was found."""
    here, bundled = device(), check_bundled_model()
    report: dict[str, Any] = {
        "versions": versions(None if home is None else home.code),
        "device": here,
        "variables_set": [name for name in _VARIABLES if os.environ.get(name) or os.environ.get(name.lower())],
        "bundled_model": bundled,
        "plan_4k": plan_4k(here),
    }
    if home is not None:
        models = find_models(home)
        # subfolders are the user's own names
        report["files"] = [
            asdict(file) | {"name": printable(PurePosixPath(file.name).name), "what": one_line(file.what)}
            for file in models
        ]
        needs = workflow_needs(home, models, bundled["decodes"])
        report["workflows"] = {name: [asdict(need) for need in files] for name, files in needs.items()}
    return report


def versions(comfyui: Path | None) -> dict[str, str | None]:
    """Version of everything that matters; None for what is not installed in this Python, or not found."""
    packages = ("torch", "einops", "safetensors", "huggingface_hub", "transformers", "sentencepiece")
    installed = {name: _package(name) for name in packages}
    return {
        "pidkit": pack_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "comfyui": None if comfyui is None else _in_file(comfyui / "comfyui_version.py", r'__version__ = "([^"]+)"'),
        "comfyui_frontend": _package("comfyui-frontend-package"),
        "cuda": torch.version.cuda,
        **installed,
    }


def device() -> dict:
    """The device PiD would run on: kind, name, memory in bytes, free and in all.

    Of an NVIDIA card also whether it has bfloat16, whether the fused kernels run, and which attention is taken.
    """
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name, bf16 = torch.cuda.get_device_name(), torch.cuda.is_bf16_supported()
        speed = {"fused_kernels": why_not() or "run", "attention": _attention_kernels()}
        return {"kind": "cuda", "name": name, "free": free, "total": total, "bfloat16": bf16} | speed
    free, total = main_memory()
    kind = "mps" if torch.backends.mps.is_available() else "cpu"
    return {"kind": kind, "name": platform.processor() or platform.machine(), "free": free, "total": total}


def _attention_kernels() -> list[str]:
    """Which of NVIDIA's kernels is taken, tried on sizes of a 2048 x 2048 picture; empty where that fails."""
    try:
        for heads, head_dim in ((24, 64), (16, 72)):
            q = torch.randn(1, heads, 16384, head_dim, device="cuda", dtype=torch.bfloat16)
            fastest_sdpa(q, q, q)
    except RuntimeError:  # a card without bfloat16, or without room at the moment
        return []
    return chosen_kernels()


def plan_4k(here: dict) -> dict:
    """How a v1.5 network would decode 4096 x 4096 in the memory that is free now, beside its weights.

    here: what `device` told.
    """
    where = torch.device(here["kind"])
    weights = V15_PARAMETERS * usual_dtype_bytes(where)
    free = here["free"] * (1 if where.type == "cuda" else MAIN_SHARE)
    memory = decode_memory(V15, CANVAS, CANVAS, where, budget=max(free - weights, 0))
    result = {"weights": weights, "whole_frame": memory.needed(1, CANVAS, CANVAS, None)}
    try:
        plan = memory.plan(CANVAS, CANVAS, OVERLAP)
    except NoPlanError as error:
        return result | {"fits": False, "plan": f"{memory.shortage(error)}: free memory"}
    return result | {"fits": True, "plan": plan.describe(), "peak": memory.of_plan(plan)}


def check_bundled_model() -> dict:
    """Decodes a small picture with pid_nano on the CPU: {"decodes": True}, or what went wrong."""
    try:
        net = load_network(NANO_PATH)
        latent = torch.linspace(-1, 1, 12 * 8 * 8).reshape(1, 12, 8, 8)
        image = decode(net, latent)
    except Exception as error:  # whatever it is, the report must say it
        line = one_line((str(error).splitlines() or [""])[0])
        return {"decodes": False, "why": f"{type(error).__name__}: {_PATH.sub('', line)}"}
    if image.shape != (1, 3, 64, 64) or not bool(torch.isfinite(image).all()):
        return {"decodes": False, "why": f"it gave {list(image.shape)} with NaN or of a wrong size"}
    return {"decodes": True}


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _in_file(path: Path, pattern: str) -> str | None:
    try:
        match = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return match and match[1]
