"""Work on the pack, on any system: `python scripts/dev.py COMMAND`, with Python 3.10 or newer and git.

Only the standard library: set-up, which comes first in every command, makes the environment that all else runs in.
Exit code: that of the last program that was run; 2 for wrong arguments; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import comfy_env
import setup as set_up
from child_process import run_to_end
from comfy_env import ROOT, venv_python
from folder_links import link_folder
from terminal import print_anything

# The oldest that are supported: torch.OutOfMemoryError came with PyTorch 2.5.
OLDEST_PYTHON = "3.10"
OLDEST_TORCH = "2.5.0"
OLDEST_TOOLS = (
    "aiohttp", "av", "huggingface_hub", "hypothesis", "numpy", "pillow", "pyarrow", "pytest", "pytest-xdist",
    "setuptools", "tqdm", "wheel",
)  # fmt: skip
MODEL_WORKFLOWS = (
    "pid_upscale", "pid_upscale_demo", "pid_context_window_demo", "pid_tune_per_image", "pid_sigma_sweep",
    "pid_paint_sigma", "pid_touch_up", "pid_upscale_and_check", "pid_folder_to_4k", "pid_folder_auto_strength",
)  # fmt: skip


class DevError(Exception):
    """A command that cannot go on; said in one line."""


def python(*arguments: str) -> int:
    """Runs the environment's Python in the project's folder; returns its exit code."""
    return run_to_end([comfy_env.python(), *arguments], cwd=ROOT)


def in_turn(*commands: Sequence[str]) -> int:
    """Runs them until one fails."""
    return next((code for arguments in commands if (code := python(*arguments))), 0)


def setup(options: argparse.Namespace) -> int:
    code = set_up.main()
    # Without ComfyUI the core still works, so only CI stops there.
    return 0 if code == set_up.NO_COMFYUI and os.environ.get("CI") != "true" else code


def demo(options: argparse.Namespace) -> int:
    return python("scripts/demo.py")


def comfyui(options: argparse.Namespace) -> int:
    return python("scripts/serve.py", "--port", str(options.port), *options.more)


def pytest(options: argparse.Namespace, *arguments: str) -> Sequence[str]:
    return "-m", "pytest", "-n", str(options.jobs), "--dist", "worksteal", *arguments, *options.more


def test(options: argparse.Namespace) -> int:
    return python(*pytest(options))


def test_oldest(options: argparse.Namespace) -> int:
    """Not in .ci/run, for the time and room of a second PyTorch."""
    venv = ROOT / ".venv-oldest"
    own = venv_python(venv)
    if not own.exists() or subprocess.run([own, "-m", "pip", "--version"], capture_output=True).returncode:
        named = os.environ.get("OLDEST_PYTHON")
        found = [named] if named else oldest_python(os.name)
        pyenv = {**os.environ, "PYENV_VERSION": OLDEST_PYTHON}
        if run_to_end([*found, "-m", "venv", "--clear", venv], cwd=ROOT, env=pyenv):
            raise DevError(f"no {' '.join(found)} that can make an environment: see docs/file_guide.md")
    torch = f"torch=={os.environ.get('OLDEST_TORCH') or OLDEST_TORCH}"
    quiet = "-m", "pip", "install", "-q", "--disable-pip-version-check"
    if code := run_to_end([own, *quiet, torch, "-r", "requirements.txt", *OLDEST_TOOLS], cwd=ROOT):
        return code
    return run_to_end([own, *pytest(options, *([] if options.more else ["tests/core"]))], cwd=ROOT)


def oldest_python(system: str) -> list[str]:
    return ["py", f"-{OLDEST_PYTHON}"] if system == "nt" else [f"python{OLDEST_PYTHON}"]


def coverage(options: argparse.Namespace) -> int:
    measured = "--cov=pid_core", "--cov-branch", "--cov-report=term"
    return python(*pytest(options, "tests/core", "tests/fuzz", *measured))


def lint(options: argparse.Namespace) -> int:
    if code := in_turn(["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."]):
        return code
    link_folder(ROOT / ".mypy_cache" / "pidkit", ROOT)
    return python("-m", "mypy")


def locales(options: argparse.Namespace) -> int:
    return python("scripts/locales.py")


def workflows(options: argparse.Namespace) -> int:
    return python("scripts/make_workflows.py")


def thumbnails(options: argparse.Namespace) -> int:
    return python("scripts/workflow_pictures.py")


def model_pictures(options: argparse.Namespace) -> int:
    return in_turn(
        ["scripts/readme_pictures.py"],
        ["scripts/workflow_pictures.py", *MODEL_WORKFLOWS],
        ["-m", "pytest", "-q", "tests/browser/test_tour.py"],
        ["scripts/pictures.py", "tour"],
    )


def pictures(options: argparse.Namespace) -> int:
    return in_turn(["-m", "pytest", "-q", "tests/browser"], ["scripts/pictures.py"])


@dataclass(frozen=True)
class Command:
    """about: what help says. passes_to: the program that gets the arguments which are not ours; None: there are none.

    needs_setup: whether set-up comes first.
    """

    run: Callable[[argparse.Namespace], int]
    about: str
    passes_to: str | None = None
    jobs: bool = False
    port: bool = False
    needs_setup: bool = True


COMMANDS = {
    "demo": Command(demo, "the bundled photo to 4x through a real ComfyUI; writes output/demo_*.png"),
    "comfyui": Command(comfyui, "leave ComfyUI running with the pack in it", "ComfyUI", port=True),
    "test": Command(test, "run the tests, or those that are named", "pytest", jobs=True),
    "test-oldest": Command(
        test_oldest,
        "tests/core with the oldest Python and PyTorch, in .venv-oldest (about 6 GB)",
        "pytest",
        jobs=True,
        needs_setup=False,
    ),
    "coverage": Command(
        coverage, "which lines of pid_core the tests of tests/core and tests/fuzz reach", "pytest", jobs=True
    ),
    "lint": Command(lint, "check style and types"),
    "locales": Command(locales, "write locales/en from the nodes' own words"),
    "workflows": Command(workflows, "write example_workflows from scripts/workflow_graphs.py"),
    "thumbnails": Command(thumbnails, "draw example_workflows/*.jpg with the bundled model and by code"),
    "model-pictures": Command(
        model_pictures, "draw all that shows the bundled model: README's, the examples' and the tour's"
    ),
    "pictures": Command(pictures, "screenshots for the docs, from the browser tests"),
    "setup": Command(setup, "environment, tools and ComfyUI; exit code 3 in CI: no ComfyUI", needs_setup=False),
}


class Parser(argparse.ArgumentParser):
    """One whose errors are one line."""

    def error(self, message: str):
        self.exit(2, f"dev: {message}; `python scripts/dev.py --help` lists what there is\n")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="dev.py",
        description="Work on the pack. The first run sets up an environment in this folder (about 6 GB).",
        epilog="COMFYUI_PATH=folder uses the ComfyUI you have; COMFYUI_COMMIT=v0.25.0 (or a commit) fetches another. "
        "OLDEST_PYTHON and OLDEST_TORCH choose what test-oldest takes.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, command in COMMANDS.items():
        more = f" Other arguments go to {command.passes_to}." if command.passes_to else ""
        one = commands.add_parser(
            name,
            help=command.about,
            description=f"{command.about[0].upper()}{command.about[1:]}.{more}",
            allow_abbrev=False,
        )
        if command.jobs:
            # Each starts a ComfyUI of its own (1 GB). More than there are processors slow the browser's, which take
            # longest.
            default = os.environ.get("JOBS") or "2"
            one.add_argument("--jobs", type=int, default=default, help="processes that run tests; JOBS, or 2")
        if command.port:
            default = os.environ.get("PORT") or "8188"
            one.add_argument("--port", type=int, default=default, help="PORT, or 8188")
    options, more = parser.parse_known_args(argv)
    if more and not COMMANDS[options.command].passes_to:
        parser.error(f"{options.command} takes no {more[0]}")
    options.more = more
    return options


def main(argv: Sequence[str] | None = None) -> int:
    print_anything()
    command = COMMANDS[(options := parse(sys.argv[1:] if argv is None else argv)).command]
    try:
        if command.needs_setup and (code := setup(options)):
            return code
        return command.run(options)
    except KeyboardInterrupt:
        print("\ndev: stopped", file=sys.stderr)
        return 130
    except (DevError, OSError, ValueError) as error:
        print(f"dev: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
