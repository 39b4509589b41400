"""What every test shares: paths, and a ComfyUI that is a server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import comfy_env
from support.page import OPEN_PAGE

# For PyTorch, which is not imported yet, here and in what tests start: more threads cost tiny networks more than they
# give, and `make test` runs several processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test depends on how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Beside the tests of other folders no page is drawn."""
    front_end = item.config.stash.get(OPEN_PAGE, None)
    if front_end is not None and item.path.parent.name != "browser" and front_end.page.url != "about:blank":
        front_end.leave()


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the project."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory):
    """A running ComfyUI on the CPU with the pack in it (booted_comfy.py)."""
    try:
        comfy_env.find_comfyui()
    except (FileNotFoundError, ValueError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"No ComfyUI to test in: {error}")
        pytest.skip(f"NOT TESTED in ComfyUI: {error}")
    from support.booted_comfy import TestServer

    with TestServer(tmp_path_factory.mktemp("comfyui")) as server:
        yield server


@pytest.fixture
def empty_input(comfy) -> Iterator[Path]:
    """The server's input folder, without a file in it, as after an installation; what a test leaves in it goes too."""
    _empty(comfy.input)
    yield comfy.input
    _empty(comfy.input)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
