"""What a checkpoint's path and left-over tensors suggest where neither its shapes nor its metadata tell.

Hints only fill gaps: what the file itself says, and what the user sets, outrank them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..latents.families import families_with

AUX_HEAD = "lq_proj.lq_aux_rgb_head."  # training only; a distilled student's file has it no more


def field_hints(names: Iterable[str], path: Path | None = None) -> dict[str, str]:
    """Fields of PiDConfig that tensor names (as stored in the file) and the path suggest: schedule, rope_mode."""
    names = list(names)
    if not any(".lq_proj." in f".{name}" for name in names):
        # PixelDiT's own files (prefix core.) have RoPE of a fixed theta; its 2K-to-4K descendants scale it like PiD
        fixed = any(name.startswith("core.") for name in names)
        return {"schedule": "undistilled", "rope_mode": "original" if fixed else "ntk_aware"}
    words = _words(path)
    if "undistill" in words:
        return {"schedule": "undistilled"}
    student = "distill" in words or "4step" in words or not any(AUX_HEAD in name for name in names)
    return {"schedule": "distilled" if student else "undistilled"}


def family_hint(channels: int, path: Path | None) -> str | None:
    """The latent family that the path names, of those with this many channels; None where it names none or several."""
    words = _words(path)
    # released files and folders have a family's name, or a model's that shares it
    found = [row.name for row in families_with(channels) if any(name in words for name in (row.name, *row.serves))]
    return found[0] if len(found) == 1 else None


def _words(path: Path | None) -> str:
    """File and folder name without separators: NVIDIA's files all have one name, in folders that tell them apart."""
    if path is None:
        return ""
    return "".join(c for c in f"{path.parent.name}/{path.name}".lower() if c.isalnum())
