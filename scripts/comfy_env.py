"""Which ComfyUI and which Python this checkout uses: read from COMFYUI_PATH and COMFYUI_COMMIT.

Standard library only: it runs before any set-up.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACK = "ComfyUI-PiDKit"
SET_UP = "Run `python scripts/dev.py setup`."
RELEASES = {
    "v0.25.0": "0a92ed161e6fa18eb169d96d64b4c279cf280dc5",
    "v0.33.0": "0f1fa67ad8a68b62c65ebc97a7bf485df2459c3a",
}
DEFAULT_COMMIT = RELEASES["v0.33.0"]
BASE_VENV = ROOT / ".venv"
CLI_VENV = ROOT / ".venv-cli"  # comfy-cli, which packs and publishes


def commit() -> str:
    """The ComfyUI commit named by COMFYUI_COMMIT: a release above, a full sha, or the start of a known sha.

    Raises ValueError for anything else, because a shallow fetch needs the full sha.
    """
    name = os.environ.get("COMFYUI_COMMIT", "").strip() or DEFAULT_COMMIT
    if name in RELEASES:
        return RELEASES[name]
    shas = [sha for sha in RELEASES.values() if len(name) >= 7 and sha.startswith(name.lower())]
    if shas:
        return shas[0]
    if len(name) == 40 and all(c in "0123456789abcdef" for c in name.lower()):
        return name.lower()
    raise ValueError(f"COMFYUI_COMMIT={name} is neither a 40-digit commit nor one of {', '.join(RELEASES)}.")


def own_comfyui() -> Path | None:
    """The folder in COMFYUI_PATH, or None where it is not set."""
    path = os.environ.get("COMFYUI_PATH", "").strip()
    return Path(path).expanduser().resolve() if path else None


def comfyui_folder() -> Path:
    """Where ComfyUI is, or where set-up will put it."""
    own = own_comfyui()
    if own:
        return own
    sha = commit()
    return ROOT / (".comfyui" if sha == DEFAULT_COMMIT else f".comfyui-{sha[:8]}")


def comfyui_venv() -> Path:
    """The environment with that ComfyUI's requirements. Only the default commit shares `.venv`."""
    own = own_comfyui()
    if own:
        return ROOT / f".venv-{hashlib.sha256(str(own).encode()).hexdigest()[:8]}"
    sha = commit()
    return BASE_VENV if sha == DEFAULT_COMMIT else ROOT / f".venv-{sha[:8]}"


def venv_python(venv: Path, system: str = os.name) -> Path:
    """Where an environment has its Python; system: `os.name` of the machine."""
    return venv / ("Scripts/python.exe" if system == "nt" else "bin/python")


def python() -> Path:
    """The Python to run things with: ComfyUI's environment where it exists, else `.venv`."""
    own = venv_python(comfyui_venv())
    return own if own.exists() else venv_python(BASE_VENV)


def pack_folder(comfyui: Path) -> Path | None:
    """The entry of custom_nodes that is this checkout, or None."""
    nodes = comfyui / "custom_nodes"
    if not nodes.is_dir():
        return None
    return next((entry for entry in sorted(nodes.iterdir()) if entry.resolve() == ROOT), None)


def find_comfyui() -> tuple[Path, str]:
    """The ready ComfyUI folder and the name of our folder in its custom_nodes.

    Raises FileNotFoundError with one line that says what is missing.
    """
    folder = comfyui_folder()
    if not (folder / "main.py").is_file():
        raise FileNotFoundError(f"There is no ComfyUI in {folder} (no main.py). {SET_UP}")
    pack = pack_folder(folder)
    if pack is None:
        raise FileNotFoundError(
            f"The pack is not linked into {folder / 'custom_nodes'}. Run `python scripts/dev.py setup`."
        )
    if not venv_python(comfyui_venv()).exists():
        raise FileNotFoundError(
            f"There is no Python environment in {comfyui_venv()}. Run `python scripts/dev.py setup`."
        )
    return folder, pack.name
