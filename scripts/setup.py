"""Set up a checkout: `.venv`, the tools, ComfyUI and its requirements, and the link into custom_nodes.

Safe to run again: what is done already is skipped. Standard library only.
Exit codes: 0 all there; 3 ComfyUI cannot be had, the core is ready; 1 anything else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import comfy_env
from comfy_env import BASE_VENV, CLI_VENV, PACK, ROOT, venv_python
from folder_links import is_link, link_folder
from terminal import print_anything

# ComfyUI leaves torch unpinned; these three are known to run both releases it is tested on.
TORCH = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]
COMFY_CLI = "comfy-cli==1.23.0"
REMOTE = "https://github.com/Comfy-Org/ComfyUI"
# Large tokenizers of text encoders that nothing here uses.
SPARSE = ["/*", "!/comfy/text_encoders/llama_tokenizer/", "!/comfy/text_encoders/qwen35_tokenizer/"]
NO_COMFYUI = 3
READ_DEV = """
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    print("\\n".join(tomllib.load(file)["project"]["optional-dependencies"]["dev"]))
"""


class SetupError(Exception):
    pass


class NoComfyUI(SetupError):
    pass


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(*command: str | Path, **options) -> None:
    words = [str(word) for word in command]
    try:
        subprocess.run(words, check=True, cwd=ROOT, **options)
    except (OSError, subprocess.SubprocessError) as error:
        raise SetupError(f"`{' '.join(words[:6])}` failed: {error}".splitlines()[0]) from None


@contextlib.contextmanager
def once(venv: Path, step: str, *inputs: str):
    """Yields True where `step` is still to be done in `venv` with these inputs; records it on success."""
    stamps = venv / "pidkit-setup.json"
    done = json.loads(stamps.read_text(encoding="utf-8")) if stamps.exists() else {}
    stamp = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
    if done.get(step) == stamp:
        yield False
        return
    yield True
    stamps.write_text(json.dumps({**done, step: stamp}, indent=1), encoding="utf-8")


def install(venv: Path, *arguments: str | Path) -> None:
    """With uv where the machine has it, which takes a quarter of pip's time.

    Python compiles later what is imported, a tenth of all these files.
    """
    loud = sys.stdout.isatty()
    # Only pip sees what .venv lends another environment.
    if venv in (BASE_VENV, CLI_VENV) and (uv := shutil.which("uv")):
        with contextlib.suppress(SetupError):  # pip may know another registry
            return run(uv, "pip", "install", *([] if loud else ["--quiet"]), "--python", venv_python(venv), *arguments)
    pip = venv_python(venv), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"
    run(*pip, *([] if loud else ["-qq"]), *arguments)


def make_venv(venv: Path) -> None:
    if venv_python(venv).exists():
        return
    say(f"making {venv.name} with Python {'.'.join(map(str, sys.version_info[:3]))}")
    try:
        run(sys.executable, "-m", "venv", venv)
    except SetupError:
        raise SetupError(
            f"{sys.executable} cannot make a virtual environment. On Debian and Ubuntu install python3-venv."
        ) from None


def install_tools() -> None:
    python = venv_python(BASE_VENV)
    tools = subprocess.check_output([python, "-c", READ_DEV], cwd=ROOT, encoding="utf-8").split()
    requirements = ROOT / "requirements.txt"
    with once(BASE_VENV, "tools", requirements.read_text(encoding="utf-8"), *TORCH, *tools) as needed:
        if needed:
            say("installing torch and the test tools into .venv (some minutes and 6 GB the first time)")
            install(BASE_VENV, "-r", requirements, *TORCH, *tools)


def install_cli() -> None:
    """Apart from the others, because it brings many packages, none of which may change what ComfyUI runs with.

    Only the test of the registry's archive needs it, so outside CI set-up goes on without.
    """
    try:
        make_venv(CLI_VENV)
        with once(CLI_VENV, "comfy-cli", COMFY_CLI) as needed:
            if needed:
                say(f"installing {COMFY_CLI} into {CLI_VENV.name}")
                install(CLI_VENV, COMFY_CLI)
    except SetupError as error:
        if os.environ.get("CI") == "true":
            raise
        say(f"NO COMFY-CLI: {error}. The archive for the registry cannot be tested.")


def git(folder: Path, *arguments: str) -> str:
    # Inside a git hook GIT_DIR and its kin point at this project, not at ComfyUI.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env["GIT_TERMINAL_PROMPT"] = "0"
    slow = ["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"]
    command = ["git", "-C", str(folder), "-c", "core.longpaths=true", *slow, *arguments]
    heard = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    try:
        done = subprocess.run(command, env=env, check=True, timeout=600, **heard)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no message").splitlines()[-1]
        raise NoComfyUI(f"git {arguments[0]} of {REMOTE} failed: {last}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoComfyUI(f"git {arguments[0]} of {REMOTE} failed: {error}") from None
    return done.stdout.strip()


def get_comfyui(folder: Path) -> None:
    if comfy_env.own_comfyui():
        if not (folder / "main.py").is_file():
            raise NoComfyUI(f"COMFYUI_PATH={folder} holds no main.py")
        return
    sha = comfy_env.commit()
    # Git moves HEAD only once every file is written, so this also sees an interrupted checkout.
    with contextlib.suppress(NoComfyUI):
        if (folder / ".git").exists() and git(folder, "rev-parse", "HEAD") == sha:
            return
    say(f"getting ComfyUI {sha[:8]} into {folder.name}")
    folder.mkdir(exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
        git(folder, "remote", "add", "origin", REMOTE)
    git(folder, "sparse-checkout", "set", "--no-cone", *SPARSE)
    git(folder, "fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", sha)
    git(folder, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", sha)


def packages_folder(venv: Path) -> Path:
    """Where an environment has its packages, as its own Python says."""
    code = "import sys, sysconfig; sys.stdout.buffer.write(sysconfig.get_path('purelib').encode())"
    return Path(subprocess.check_output([venv_python(venv), "-c", code]).decode())


def lend_packages(venv: Path) -> None:
    """Torch is gigabytes: what .venv has is seen there too, and only what this ComfyUI wants otherwise is installed."""
    # A line of code in ASCII: Python reads these files in the system's encoding, which may lack a folder's name.
    line = f"import sys; sys.path.append({str(packages_folder(BASE_VENV))!a})\n"
    (packages_folder(venv) / "pidkit-base.pth").write_text(line, encoding="ascii")


def install_requirements(folder: Path) -> None:
    venv = comfy_env.comfyui_venv()
    if venv != BASE_VENV:
        make_venv(venv)
        lend_packages(venv)
    requirements = folder / "requirements.txt"
    with once(venv, "comfyui", requirements.read_text(encoding="utf-8"), *TORCH) as needed:
        if needed:
            say(f"installing ComfyUI's requirements into {venv.name}")
            install(venv, "-r", requirements, *TORCH)


def link_pack(folder: Path) -> None:
    if comfy_env.pack_folder(folder):
        return
    link = folder / "custom_nodes" / PACK
    if is_link(link):
        say(f"{link} pointed to {link.resolve()}; it points here now")
    elif link.exists():
        raise SetupError(f"{link} is another copy of the pack. Move it away, then run again.")
    link_folder(link, ROOT)
    say(f"linked the pack as {link}")


def main() -> int:
    print_anything()
    if sys.version_info < (3, 10):  # noqa: UP036 - this file is what tells users of an old Python
        say(f"Python {sys.version.split()[0]} is too old; 3.10 or newer is needed.")
        return 1
    try:
        comfy_env.commit()
        make_venv(BASE_VENV)
        install_tools()
        install_cli()
        folder = comfy_env.comfyui_folder()
        get_comfyui(folder)
        link_pack(folder)
        install_requirements(folder)
    except NoComfyUI as error:
        say(f"ComfyUI CANNOT BE HAD: {error}. Only the core can run; COMFYUI_PATH may name a ComfyUI folder.")
        return NO_COMFYUI
    except (SetupError, ValueError, OSError, subprocess.SubprocessError) as error:
        say(str(error))
        return 1
    say(f"ready: ComfyUI in {folder}, Python in {comfy_env.comfyui_venv()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
