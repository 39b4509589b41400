"""The fuzzers call nodes in this process: the fixture `comfyui` of tests/comfyui."""

import pytest


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory):
    """ComfyUI's modules and the pack in the test process; what nodes write goes to a folder of its own."""
    from support.inside import inside_or_skip

    inside = inside_or_skip(tmp_path_factory.mktemp("models"))
    import folder_paths

    for folder in ("output", "input", "temp", "user"):
        getattr(folder_paths, f"set_{folder}_directory")(str(tmp_path_factory.mktemp(folder)))
    return inside
