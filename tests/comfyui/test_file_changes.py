"""A checkpoint that is overwritten or cut short while it is in use: one line, never the end of ComfyUI."""

import os

import pytest
import torch

from support.graphs import decode_graph, put_latent
from support.tiny import save_tiny


@pytest.fixture
def large(comfyui, monkeypatch):
    """Every file counts as too large to be read into memory at once."""
    monkeypatch.setattr(comfyui.model, "SMALL_FILE", 0)


def decoded(comfyui, patcher) -> torch.Tensor:
    latent = torch.randn(1, 16, 1, 2, generator=torch.Generator().manual_seed(1))
    return comfyui.sample(patcher, *comfyui.conditioning(patcher, latent), steps=2)


def file_of(comfyui, name: str):
    return save_tiny(comfyui.folder / f"changes_{name}.safetensors", caption=3)


@pytest.mark.parametrize("how", ["cut", "overwritten", "removed"])
def test_a_mapped_file_that_changed_is_refused_before_the_run(comfyui, large, how):
    path = file_of(comfyui, how)
    patcher = comfyui.model.load_model(str(path))
    decoded(comfyui, patcher)
    if how == "cut":
        os.truncate(path, 5000)
    elif how == "overwritten":
        with path.open("r+b") as file:
            file.write(b"x" * 9000)
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
    with pytest.raises(ValueError, match="was changed or removed since it was loaded") as caught:
        decoded(comfyui, patcher)
    assert str(caught.value).startswith(path.name) and "\n" not in str(caught.value)


def test_a_file_that_changes_between_two_steps(comfyui, large):
    path = file_of(comfyui, "between")
    patcher = comfyui.model.load_model(str(path))
    with pytest.raises(ValueError, match="was changed or removed"):
        latent = torch.zeros(1, 16, 1, 2)
        comfyui.sample(
            patcher,
            *comfyui.conditioning(patcher, latent),
            steps=3,
            callback=lambda step, *_: os.utime(path, ns=(step, step)),
        )


@pytest.mark.parametrize("why", ["small", "disable_mmap"])
def test_a_file_that_was_read_into_memory_may_change(comfyui, monkeypatch, why):
    path = file_of(comfyui, why)
    if why == "disable_mmap":
        monkeypatch.setattr(comfyui.model, "SMALL_FILE", 0)
        monkeypatch.setattr(comfyui.model.comfy.utils, "DISABLE_MMAP", True)
    patcher = comfyui.model.load_model(str(path))
    expected = decoded(comfyui, patcher)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(decoded(comfyui, patcher), expected)
    os.truncate(path, 10)
    assert torch.equal(decoded(comfyui, patcher), expected)


def test_the_server_outlives_a_file_that_is_cut_short_in_a_run(comfy):
    path = save_tiny(comfy.models / "diffusion_models" / "cut_in_a_run.safetensors", caption=3)
    size, steps = path.stat().st_size, []

    def cut(event, data):
        if event == "progress" and not steps:
            steps.append(data)
            os.truncate(path, size // 3)

    graph = decode_graph(path.name, put_latent(comfy, "cut_in_a_run", torch.zeros(1, 16, 4, 4)))
    comfy.queue(graph, on_event=cut)
    assert steps and comfy.alive
