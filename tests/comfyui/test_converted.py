"""Files that `convert --to` writes: ComfyUI's own numbers to the bit, and both loaders run them."""

from __future__ import annotations

import importlib
from pathlib import Path
from unittest import mock

import pytest
import torch

from pid_core import NANO_PATH, load_network
from pid_core.checkpoints.convert import convert
from pid_core.checkpoints.packing import PACKED, pack, rounded_input, unpack
from pid_core.checkpoints.packing_rule import packed_layers
from pid_core.images.psnr import psnr
from support.inside import CORE_SIZES, by_core, lq_of
from support.tiny import save_tiny

# Sides that every format packs, and one that int8 rotates
BIG = {"hidden_size": 64, "mlp_size": 256, "pixel_attn_size": 32, "lq_width": 32, "caption_width": 32}
CLOSEST = {"fp8": 30, "int8": 40, "mxfp8": 30}  # dB against the plain weights, of pictures of noise


@pytest.fixture
def quant(comfyui):
    return importlib.import_module("comfy.quant_ops")


@pytest.fixture(params=PACKED)
def to(request, quant, comfyui):
    """A format that this ComfyUI reads. One that it does not is told so in one line."""
    name = PACKED[request.param].name
    if name not in quant.QUANT_ALGOS:
        path, _ = convert(saved(comfyui.folder), packed_path(comfyui.folder), to=request.param)
        with pytest.raises(ValueError, match=f"quantised as {name}, which ComfyUI .* cannot run .*update ComfyUI"):
            comfyui.model.load_model(str(path))
        pytest.skip(f"this ComfyUI does not know {name}, and PiD Loader says so")
    return request.param


def packed_path(folder: Path) -> Path:
    return folder / f"{len(list(folder.iterdir()))}_packed.safetensors"


def saved(folder: Path, **changes) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}_plain.safetensors"
    return save_tiny(path, "flux", "v1.5", caption=3, dtype=torch.bfloat16, **(BIG | changes))


@pytest.mark.parametrize("shape", [(64, 96), (160, 512)])
def test_the_same_bits_as_comfyuis_own(comfyui, quant, to, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 1, shape[0])[:, None]
    weight[:, 5] *= 20
    rotated = {"convrot": True, "convrot_groupsize": 256} if shape[1] % 256 == 0 else {}
    how = {"fp8": {"scale": "recalculate"}, "int8": {"per_channel": True, **rotated}, "mxfp8": {}}[to]
    layout = quant.QUANT_ALGOS[PACKED[to].name]["comfy_tensor_layout"]
    theirs = quant.QuantizedTensor.from_float(weight, layout, **how)
    tensors, ours = theirs.state_dict("weight"), pack(to, weight)
    assert torch.equal(ours["weight"].view(torch.uint8), tensors["weight"].view(torch.uint8))
    assert torch.equal(ours["weight_scale"], tensors["weight_scale"].view(ours["weight_scale"].dtype))
    assert torch.equal(unpack(to, ours), theirs.dequantize())
    x = torch.randn(32, shape[1], generator=torch.Generator().manual_seed(1))
    options = {"is_weight": False} if to == "int8" else {}
    seen = quant.QuantizedTensor.from_float(x, layout, **options).dequantize()
    if not rotated or to != "int8":  # ComfyUI turns int8's inputs within the product
        assert torch.equal(rounded_input(to, x), seen)


@torch.inference_mode()
def test_pid_loader_runs_them(comfyui, to):
    source = saved(comfyui.folder)
    path, config = convert(source, packed_path(comfyui.folder), to=to)
    patcher = comfyui.model.load_model(str(path))
    network = patcher.model.diffusion_model
    kinds = {
        name: type(module.weight).__name__ for name, module in network.named_modules() if hasattr(module, "weight")
    }
    packed = packed_layers(config, to)
    assert len(packed) == 40 and {kinds[name] for name in packed} == {"QuantizedTensor"}
    assert "QuantizedTensor" not in {kind for name, kind in kinds.items() if name not in packed}
    latent = torch.randn(1, 16, 1, 2, generator=torch.Generator().manual_seed(3))
    made = comfyui.conditioning(patcher, latent, 0.1)
    out = comfyui.sample(patcher, *made).clamp(-1, 1)
    db = psnr(out, by_core(load_network(source), lq_of(made[0]), 0.1))
    assert CLOSEST[to] < db < 80, db


@torch.inference_mode()
def test_the_bundled_model_converted(comfyui, to):
    path, _ = convert(NANO_PATH, packed_path(comfyui.folder), to=to)
    patcher = comfyui.model.load_model(str(path))
    latent = torch.rand(1, 12, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    made = comfyui.conditioning(patcher, latent)
    out = comfyui.sample(patcher, *made).clamp(-1, 1)
    assert psnr(out, by_core(load_network(NANO_PATH), lq_of(made[0]))) > 100  # its packed layers are switched off


@pytest.mark.parametrize("version", ["v1", "v1.5"])
@torch.inference_mode()
def test_comfyuis_own_loader_runs_them(comfyui, core_pid, to, version):
    """At the sizes that CORE_SIZES sets, of which mlp_size fits no format: such layers stay as they are."""
    plain, net = core_pid("flux", version), comfyui.load("flux", version)[1]
    source = save_tiny(packed_path(comfyui.folder), "flux", version)
    path, _ = convert(source, packed_path(comfyui.folder), to=to)
    detection, sd = (importlib.import_module(f"comfy.{name}") for name in ("model_detection", "sd"))
    detect = detection.detect_unet_config
    with mock.patch.object(detection, "detect_unet_config", lambda *a, **k: detect(*a, **k) | CORE_SIZES):
        packed = sd.load_diffusion_model(str(path))
    network = packed.model.diffusion_model
    assert type(packed.model).__name__ == "PiD"
    assert type(network.patch_blocks[0].attn.qkv_x.weight).__name__ == "QuantizedTensor"
    assert type(network.patch_blocks[0].mlp_x.w1.weight).__name__ == "Parameter"
    text = torch.randn(1, 12, 24, generator=torch.Generator().manual_seed(2))
    latent = torch.randn(1, net.config.latent_channels, 1, 2, generator=torch.Generator().manual_seed(3))

    def draw(patcher):
        made = comfyui.nodes.PiDKitConditioning.execute(
            latent={"samples": latent}, latent_format="flux", degrade_sigma=0.1, latent_noise="keep", noise_seed=0,
            positive=[[text, {}]], negative=None, model=patcher,
        ).args  # fmt: skip
        return comfyui.sample(patcher, *made).clamp(-1, 1)

    assert CLOSEST[to] < psnr(draw(packed), draw(plain)) < 80
