"""Weights of 16 and 8 bits in ComfyUI: a few layers stay float32 beside them, and the picture stays the same."""

import importlib

import pytest
import torch

from pid_core.images.psnr import psnr
from support.inside import by_core, lq_of

HALVES = (torch.bfloat16, torch.float16)
EXACT = ("norm", "log_alpha", "t_embedder.", "pixel_embedder.", "final_layer.")


@pytest.fixture
def no_manual_cast(comfyui, monkeypatch):
    """A device that computes in the weights' own dtype, as GPUs do."""
    monkeypatch.setattr(comfyui.management, "unet_manual_cast", lambda *a, **k: None)


def dtypes(patcher) -> dict[str, torch.dtype]:
    return {k: v.dtype for k, v in patcher.model.diffusion_model.state_dict().items()}


@pytest.mark.parametrize("dtype", HALVES)
def test_some_layers_stay_float32(comfyui, dtype):
    patcher, net = comfyui.load("flux", "v1.5", dtype=dtype)
    found = dtypes(patcher)
    assert set(found) == set(net.state_dict())
    for name, kind in found.items():
        group_norm = ".block.0." in name or ".block.3." in name
        assert kind == (torch.float32 if group_norm or any(word in name for word in EXACT) else dtype), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("family", "version"), [("flux", "v1"), ("flux2", "v1.5"), ("rgb", "v1")])
def test_computing_in_the_weights_dtype(comfyui, no_manual_cast, family, version, dtype):
    patcher, net = comfyui.load(family, version, file_dtype=torch.bfloat16, dtype=dtype)
    assert patcher.model.get_dtype_inference() == dtype
    latent = torch.randn(1, net.config.latent_channels, 2, 3, generator=torch.Generator().manual_seed(4))
    made = comfyui.conditioning(patcher, latent, 0.2)
    out = comfyui.sample(patcher, *made)
    assert out.dtype == torch.float32
    assert patcher.model.diffusion_model.compute_dtype == dtype
    assert psnr(out.clamp(-1, 1), by_core(net, lq_of(made[0]), 0.2)) > 45


def test_short_weights_are_computed_in_the_devices_dtype(comfyui):
    patcher, net = comfyui.load(file_dtype=torch.bfloat16, dtype=torch.bfloat16)
    assert patcher.model.diffusion_model.y_pos_embedding.dtype == torch.bfloat16
    assert patcher.model.get_dtype_inference() == torch.float32  # a CPU
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 2, 2))
    out = comfyui.sample(patcher, *made)
    assert torch.allclose(out.clamp(-1, 1), by_core(net, lq_of(made[0])), atol=2e-5)


def test_eight_bit_weights_run(comfyui):
    patcher, net = comfyui.load(dtype=torch.float8_e4m3fn)
    assert dtypes(patcher)["patch_blocks.0.attn.qkv_x.weight"] == torch.float8_e4m3fn
    assert dtypes(patcher)["final_layer.linear.weight"] == torch.float32
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    out = comfyui.sample(patcher, *made)
    assert psnr(out.clamp(-1, 1), by_core(net, lq_of(made[0]))) > 15


@pytest.mark.parametrize("cast", [True, False])
def test_partly_loaded_half_precision_gives_the_same(comfyui, monkeypatch, cast):
    if not cast:
        monkeypatch.setattr(comfyui.management, "unet_manual_cast", lambda *a, **k: None)
    patcher, _ = comfyui.load("flux", "v1.5", dtype=torch.bfloat16)
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 2, 1))
    whole = comfyui.sample(patcher, *made)
    patcher.load(torch.device("cpu"), lowvram_model_memory=4096)
    assert patcher.model.model_lowvram
    assert torch.equal(comfyui.sample(patcher, *made), whole)
    patcher.unpatch_model()


LORA_LAYERS = {
    "final_layer.linear": (3, 4),
    "t_embedder.mlp.0": (32, 256),
    "patch_blocks.1.attn.proj_x": (32, 32),
}


@pytest.mark.parametrize("layer", LORA_LAYERS)
@pytest.mark.parametrize("lowvram", [False, True])
def test_lora_reaches_float32_and_short_layers(comfyui, no_manual_cast, layer, lowvram):
    patcher, _ = comfyui.load("flux", "v1.5", dtype=torch.bfloat16)
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    plain = comfyui.sample(patcher, *made)
    rows, columns = LORA_LAYERS[layer]
    generator = torch.Generator().manual_seed(1)
    lora = {
        f"diffusion_model.{layer}.lora_A.weight": torch.randn(2, columns, generator=generator),
        f"diffusion_model.{layer}.lora_B.weight": torch.randn(rows, 2, generator=generator),
    }
    load_lora = importlib.import_module("comfy.sd").load_lora_for_models
    patched, _ = load_lora(patcher, None, lora, 0.5, 0)
    if lowvram:
        patcher.unpatch_model()
        patched.load(torch.device("cpu"), lowvram_model_memory=4096)
    before = dtypes(patcher)
    changed = comfyui.sample(patched, *made)
    assert (changed - plain).abs().max() > 1e-3
    assert dtypes(patched) == before
    patched.unpatch_model()
    assert torch.equal(comfyui.sample(patcher, *made), plain)


def test_layers_that_get_their_tensors_late(comfyui, no_manual_cast, monkeypatch):
    """With ComfyUI's dynamic VRAM, a Linear has no weight before the file's is assigned."""
    monkeypatch.setattr(importlib.import_module("comfy.memory_management"), "aimdo_enabled", True)
    patcher, net = comfyui.load("flux", "v1.5", file_dtype=torch.bfloat16, dtype=torch.float16)
    found = dtypes(patcher)
    assert set(found) == set(net.state_dict())
    assert found["final_layer.linear.weight"] == found["t_embedder.mlp.0.bias"] == torch.float32
    assert found["patch_blocks.0.attn.qkv_x.weight"] == torch.float16
    made = comfyui.conditioning(patcher, torch.randn(1, 16, 1, 1))
    out = comfyui.sample(patcher, *made)
    assert psnr(out.clamp(-1, 1), by_core(net, lq_of(made[0]))) > 45
