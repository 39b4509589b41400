"""The fuzzers call nodes in this process: the fixture `comfyui` of tests/comfyui."""

import os

import pytest


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory):
    """ComfyUI's modules and the pack in the test process; what nodes write goes to a folder of its own."""
    from support.inside import Inside

    try:
        inside = Inside(tmp_path_factory.mktemp("models"))
    except (FileNotFoundError, ImportError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"ComfyUI cannot be imported: {error}")
        pytest.skip(f"NOT TESTED inside ComfyUI: {error}")
    import folder_paths

    for folder in ("output", "input", "temp", "user"):
        getattr(folder_paths, f"set_{folder}_directory")(str(tmp_path_factory.mktemp(folder)))
    return inside
