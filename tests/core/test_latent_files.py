"""Latent files: ours and ComfyUI's."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pid_core.latents.families import LATENT_FAMILIES
from pid_core.latents.files import SavedLatent, latent_bytes, read_latent


def latent(channels=16, dtype=torch.float32):
    return torch.randn(2, channels, 3, 5, generator=torch.Generator().manual_seed(1)).to(dtype)


@settings(deadline=None)
@given(family=st.sampled_from(sorted(LATENT_FAMILIES)), sigma=st.floats(0, 1))
def test_family_and_sigma_come_back(tmp_path_factory, family, sigma):
    path = tmp_path_factory.mktemp("latents") / "a.latent"
    samples = latent(LATENT_FAMILIES[family].channels)
    path.write_bytes(latent_bytes(SavedLatent(samples, family, sigma)))
    back = read_latent(path)
    assert (back.family, back.sigma) == (family, sigma)
    assert torch.equal(back.samples, samples)


def test_the_pictures_size_comes_back(tmp_path):
    path = tmp_path / "a.latent"
    path.write_bytes(latent_bytes(SavedLatent(latent(), "flux", size=(23, 40))))  # of 3 x 5 cells of 8 pixels
    assert read_latent(path).size == (23, 40)


def test_comfyuis_own_layout_is_kept(tmp_path):
    path = tmp_path / "a.latent"
    path.write_bytes(latent_bytes(SavedLatent(latent(dtype=torch.bfloat16)[:, :, None], None, 0.0), {"workflow": "{}"}))
    tensors = load_file(path)
    assert set(tensors) == {"latent_tensor", "latent_format_version_0"}
    assert tensors["latent_tensor"].dtype == torch.bfloat16
    with safe_open(path, "pt") as file:
        assert file.metadata()["workflow"] == "{}"
    back = read_latent(path)
    assert back.samples.shape == (2, 16, 1, 3, 5) and back.samples.dtype == torch.float32


def test_comfyuis_files_are_read(tmp_path):
    path = tmp_path / "a.latent"
    save_file({"latent_tensor": latent(4), "latent_format_version_0": torch.tensor([])}, path)
    back = read_latent(path)
    assert (back.family, back.sigma) == (None, 0.0)
    assert torch.equal(back.samples, latent(4))
    save_file({"latent_tensor": latent(4) * 0.18215}, path)  # its first format
    assert torch.allclose(read_latent(path).samples, latent(4))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            SavedLatent(latent(16), "sdxl", 0.0),
            "the latent has 16 channels, flux, sd3 or qwenimage; those of sdxl have 4",
        ),
        (SavedLatent(latent(16), "sd4", 0.0), "unknown latent family"),
        (SavedLatent(latent(16), "flux", 1.5), "between 0 and 1, got 1.5"),
        (SavedLatent(latent(16), "flux", float("nan")), "between 0 and 1"),
        (SavedLatent(latent(16) / 0, "flux", 0.0), "NaN or infinite"),
        (SavedLatent(torch.zeros(1, 16, 2, 3, 3), "flux", 0.0), "a video of 2 frames"),
        (SavedLatent(torch.zeros(3), None, 0.0), r"\[B, C, h, w\]"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path, saved, message):
    with pytest.raises(ValueError, match=message):
        (tmp_path / "a.latent").write_bytes(latent_bytes(saved))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", ["empty", "cut", "foreign", "entry", "family", "sigma", "nan", "shape"])
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, way):
    path = tmp_path / "odd.latent"
    path.write_bytes(latent_bytes(SavedLatent(latent(), "flux", 0.5)))
    tensors = {"latent_tensor": latent(), "latent_format_version_0": torch.tensor([])}
    entries = {
        "entry": "not json",
        "family": json.dumps({"family": "sdxl"}),
        "sigma": json.dumps({"family": "flux", "degrade_sigma": 7}),
    }
    if way == "empty":
        path.write_bytes(b"")
    elif way == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif way == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif way in entries:
        save_file(tensors, path, {"pid_latent": entries[way]})
    elif way == "nan":
        save_file(tensors | {"latent_tensor": latent() / 0}, path)
    elif way == "shape":
        save_file(tensors | {"latent_tensor": torch.zeros(7)}, path)
    with pytest.raises(ValueError, match="odd.latent") as caught:
        read_latent(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: gone.latent"):
        read_latent(tmp_path / "gone.latent")
