"""ComfyUI's Save Model keeps what a checkpoint tells beside its weights: PiD Loader gives the same model again."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pid_core import read_checkpoint
from pid_core.checkpoints.reading import CONFIG_KEY, config_tensor
from support.graphs import decode_graph, link, put_latent, saved_pixels
from support.tiny import save_tiny


def save_model(comfy, path, name: str) -> str:
    """Loads a file with PiD Loader, saves it with Save Model, puts that file among the models; returns its name."""
    comfy.queue(
        {
            "model": {"class_type": "PiDKitLoader", "inputs": {"model_name": path.name, "dtype": "auto"}},
            "save": {"class_type": "ModelSave", "inputs": {"model": link("model"), "filename_prefix": name}},
        }
    )
    (saved,) = comfy.output.glob(f"{name}_*.safetensors")
    shutil.move(saved, comfy.models / "diffusion_models" / f"{name}.safetensors")
    return f"{name}.safetensors"


@pytest.mark.parametrize("family", ["rgb", "qwenimage"])
def test_a_saved_model_decodes_to_the_same(comfy, family):
    path = save_tiny(comfy.models / "diffusion_models" / f"to_save_{family}.safetensors", family, caption=3)
    original = read_checkpoint(path)
    channels = original.config.latent_channels
    latent = torch.randn(1, channels, 3, 2, generator=torch.Generator().manual_seed(2))
    latent = put_latent(comfy, f"to_save_{family}", latent)
    before = saved_pixels(comfy, comfy.queue(decode_graph(path.name, latent)))

    name = save_model(comfy, path, f"saved_{family}")
    with safe_open(comfy.models / "diffusion_models" / name, "pt") as file:
        assert "pid_config" not in (file.metadata() or {})  # Save Model writes its own
    saved = read_checkpoint(comfy.models / "diffusion_models" / name)
    assert saved.config == original.config
    assert torch.equal(saved.default_caption, original.default_caption)
    after = saved_pixels(comfy, comfy.queue(decode_graph(name, latent)))
    assert torch.allclose(before, after, atol=2e-5)


def test_metadata_wins_over_the_stored_configuration(tmp_path):
    path = save_tiny(tmp_path / "both.safetensors", "rgb")
    config = read_checkpoint(path).config
    tensors = load_file(path)
    tensors[CONFIG_KEY] = torch.tensor(list(b'{"prediction": "velocity"}'), dtype=torch.uint8)
    save_file(tensors, path, {"pid_config": json.dumps(asdict(config))})
    assert read_checkpoint(path).config.prediction == "x0"
    save_file(tensors, path)
    assert read_checkpoint(path).config.prediction == "velocity"
    tensors[CONFIG_KEY] = config_tensor(config)
    save_file(tensors, path)
    assert read_checkpoint(path).config == config


@pytest.mark.parametrize(
    "stored", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.uint8), torch.tensor([255, 1]).byte()]
)
def test_a_stored_configuration_that_cannot_be_read(tmp_path, stored):
    path = save_tiny(tmp_path / "odd.safetensors", "rgb")
    save_file(load_file(path) | {CONFIG_KEY: stored}, path)
    with pytest.raises(ValueError, match="pid_config") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
