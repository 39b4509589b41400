"""The `comfy` fixture: one real ComfyUI for all tests of a session."""

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
