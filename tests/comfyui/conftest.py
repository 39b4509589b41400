"""The fixtures `comfy`, a ComfyUI that is a server, and `comfyui`, its modules in this process."""

import os

import pytest

import comfy_env


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory):
    """A running ComfyUI on the CPU with the pack in it (booted_comfy.py)."""
    try:
        comfy_env.find_comfyui()
    except (FileNotFoundError, ValueError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"No ComfyUI to test in: {error}")
        pytest.skip(f"NOT TESTED in ComfyUI: {error}")
    from booted_comfy import TestServer

    with TestServer(tmp_path_factory.mktemp("comfyui")) as server:
        yield server


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory):
    """ComfyUI's modules and the pack in the test process (inside.py)."""
    from inside import Inside

    try:
        return Inside(tmp_path_factory.mktemp("models"))
    except (FileNotFoundError, ImportError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"ComfyUI cannot be imported: {error}")
        pytest.skip(f"NOT TESTED inside ComfyUI: {error}")
