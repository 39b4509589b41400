"""The pixel-DiT core: checkpoint, latent and caption in, pixels out. Pure PyTorch; never imports ComfyUI.

Files beside the folders know no folder; of the folders the higher know the lower (tests/core/test_house.py).
"""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # so it is while `python -m pid_core` looks for the command line, which cannot start either
    for _needed in ("torch", "einops", "safetensors"):
        if importlib.util.find_spec(_needed) is None:
            sys.exit(
                f"pid_core: this Python has no {_needed}; run it with the Python that ComfyUI runs in, "
                f"not {sys.executable}"
            )

if TYPE_CHECKING:
    from .assets import NANO_PATH
    from .checkpoints.reading import load_network, read_checkpoint
    from .latents.checks import detect_family
    from .latents.families import LATENT_FAMILIES, LatentFamily
    from .latents.noise import degrade
    from .latents.sigma_map import SigmaMap, SigmaMask
    from .model.config import PiDConfig
    from .model.network import PiDNetwork
    from .sampling.decode import decode
    from .sampling.hold import Hold
    from .sampling.schedule import DISTILLED_SIGMAS, distilled_sigmas
    from .sampling.touch_up import touch_up
    from .windows.plan import WindowPlan, choose_plan, fuse_weights, plan_windows

__all__ = [
    "DISTILLED_SIGMAS",
    "LATENT_FAMILIES",
    "NANO_PATH",
    "Hold",
    "LatentFamily",
    "PiDConfig",
    "PiDNetwork",
    "SigmaMap",
    "SigmaMask",
    "WindowPlan",
    "choose_plan",
    "decode",
    "degrade",
    "detect_family",
    "distilled_sigmas",
    "fuse_weights",
    "load_network",
    "plan_windows",
    "read_checkpoint",
    "touch_up",
]


# What is public is imported when it is asked for: a command that only reads a manifest does without PyTorch, which
# takes half a gigabyte.
_PLACES = {
    "DISTILLED_SIGMAS": "sampling.schedule",
    "Hold": "sampling.hold",
    "LATENT_FAMILIES": "latents.families",
    "LatentFamily": "latents.families",
    "NANO_PATH": "assets",
    "PiDConfig": "model.config",
    "PiDNetwork": "model.network",
    "SigmaMap": "latents.sigma_map",
    "SigmaMask": "latents.sigma_map",
    "WindowPlan": "windows.plan",
    "choose_plan": "windows.plan",
    "decode": "sampling.decode",
    "degrade": "latents.noise",
    "detect_family": "latents.checks",
    "distilled_sigmas": "sampling.schedule",
    "fuse_weights": "windows.plan",
    "load_network": "checkpoints.reading",
    "plan_windows": "windows.plan",
    "read_checkpoint": "checkpoints.reading",
    "touch_up": "sampling.touch_up",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
