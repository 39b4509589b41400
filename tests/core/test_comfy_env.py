"""Which ComfyUI the scripts choose for what the environment says."""

import pytest

import comfy_env


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.delenv("COMFYUI_COMMIT", raising=False)


def test_default_is_the_pinned_release():
    assert comfy_env.commit() == comfy_env.RELEASES["v0.33.0"]
    assert comfy_env.comfyui_folder() == comfy_env.ROOT / ".comfyui"
    assert comfy_env.comfyui_venv() == comfy_env.BASE_VENV


@pytest.mark.parametrize("asked", ["v0.25.0", "0a92ed16", comfy_env.RELEASES["v0.25.0"]])
def test_another_release_gets_folders_of_its_own(monkeypatch, asked):
    monkeypatch.setenv("COMFYUI_COMMIT", asked)
    assert comfy_env.commit() == comfy_env.RELEASES["v0.25.0"]
    assert comfy_env.comfyui_folder().name == ".comfyui-0a92ed16"
    assert comfy_env.comfyui_venv().name == ".venv-0a92ed16"


@pytest.mark.parametrize("asked", ["main", "0a92", "z" * 40])
def test_a_name_that_is_no_commit_is_refused(monkeypatch, asked):
    monkeypatch.setenv("COMFYUI_COMMIT", asked)
    with pytest.raises(ValueError, match="neither a 40-digit commit"):
        comfy_env.commit()


def test_comfyui_path_without_comfyui_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no main.py"):
        comfy_env.find_comfyui()


def test_the_pack_is_found_under_any_name(tmp_path):
    nodes = tmp_path / "custom_nodes"
    nodes.mkdir()
    assert comfy_env.pack_folder(tmp_path) is None
    (nodes / "other").mkdir()
    (nodes / "my-pidkit").symlink_to(comfy_env.ROOT, target_is_directory=True)
    assert comfy_env.pack_folder(tmp_path).name == "my-pidkit"
