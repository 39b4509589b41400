"""The fixture `comfyui`: ComfyUI's modules in this process."""

import pytest


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory):
    """ComfyUI's modules and the pack in the test process (inside.py)."""
    from support.inside import inside_or_skip

    return inside_or_skip(tmp_path_factory.mktemp("models"))


@pytest.fixture
def core_pid(comfyui):
    """core_pid(family, version): ComfyUI's own PiD model with the weights of `comfyui.load`."""

    def load(family="flux", version="v1"):
        patcher = comfyui.load_core(family, version)
        if patcher is None:
            pytest.skip("this ComfyUI has no PiD v1.5")
        return patcher

    return load


@pytest.fixture
def card(comfyui, monkeypatch):
    """card(patcher): the model is loaded on narrow_device.DEVICE, where ComfyUI then samples. Inside its mode."""
    from support.stand_in import load_on_card

    return load_on_card(comfyui, monkeypatch)
