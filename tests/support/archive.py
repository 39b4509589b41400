"""The archive that ComfyUI's registry hands out, built by comfy-cli as publishing does, in a copy of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import comfy_env

NODE_ID = "pidkit"  # and the folder that ComfyUI-Manager and `comfy node install` unpack into


def comfy_cli(folder: Path, *arguments: str) -> str:
    """What comfy-cli says of the pack in `folder`. It keeps its settings beside it, and reaches no network."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    nowhere = {name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    env = {**_without_git(), **nowhere, "DO_NOT_TRACK": "1", "HOME": str(home), "USERPROFILE": str(home)}
    env |= {"XDG_CONFIG_HOME": str(home), "APPDATA": str(home), "COLUMNS": "200", "PYTHONUTF8": "1"}
    command = [str(comfy_env.venv_python(comfy_env.CLI_VENV)), "-m", "comfy_cli", "--skip-prompt", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def checkout(folder: Path) -> Path:
    """A copy of the files in git as they are now, in a repository of its own, prepared as publishing prepares it."""
    names = _git(comfy_env.ROOT, "ls-files", "-z").split("\0")[:-1]
    for name in names:
        if (comfy_env.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(comfy_env.ROOT / name, folder / name)
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all", "--force")
    script = comfy_env.ROOT / "scripts" / "archive_links.py"
    subprocess.run([sys.executable, script], cwd=folder, env=_without_git(), check=True, capture_output=True)
    return folder


def missing() -> str | None:
    """In a line, what keeps this machine from building the archive."""
    if not comfy_env.venv_python(comfy_env.CLI_VENV).exists():
        return f"there is no comfy-cli in {comfy_env.CLI_VENV.name}; `make setup` brings it"
    if not (comfy_env.ROOT / ".git").exists():
        return "this folder is no git checkout"
    return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", "-C", str(folder), *arguments], env=_without_git(), encoding="utf-8")


def _without_git() -> dict[str, str]:
    # Inside a git hook GIT_DIR and its kin point at this project, not at the copy.
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
