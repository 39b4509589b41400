"""Quantised files as Comfy-Org ships them: through ComfyUI's own operations, close to the same weights unquantised."""

from __future__ import annotations

import importlib
import json

import pytest
import torch
from safetensors.torch import save_file

from pid_core import load_network
from pid_core.checkpoints.quantised import FORMATS
from pid_core.images.psnr import psnr
from support.inside import by_core, lq_of
from support.layouts import split
from support.quantised import BIG, conf, layers_of, quantise, save_quantised
from support.tiny import tiny_state_dict

CLOSEST = {"float8_e4m3fn": 22, "float8_e5m2": 16, "mxfp8": 20, "int8_tensorwise": 28}  # dB, half the bits lost


@pytest.fixture(scope="module")
def plain():
    weights = tiny_state_dict("flux", "v1.5", **BIG)
    return weights, load_network({k: v.clone() for k, v in weights.items()}, family="flux", schedule="distilled")


@torch.inference_mode()  # as ComfyUI runs every node; quantised tensors mind
def decoded(comfyui, path, **options):
    patcher = comfyui.model.load_model(str(path), **options)
    text = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(2))
    latent = torch.randn(1, 16, 1, 2, generator=torch.Generator().manual_seed(3))
    made = comfyui.conditioning(patcher, latent, 0.1, positive=[[text, {}]])
    return comfyui.sample(patcher, *made, steps=1).clamp(-1, 1), made, text, patcher


def closeness(comfyui, path, net, **options) -> float:
    out, made, text, _ = decoded(comfyui, path, **options)
    assert torch.isfinite(out).all()
    return psnr(out, by_core(net, lq_of(made[0]), 0.1, text, steps=1))


def is_told_to_update(comfyui, weights, form) -> bool:
    """Whether this ComfyUI lacks the format (v0.25.0 has no int8): then a file of it gets one line that says so."""
    if form in importlib.import_module("comfy.quant_ops").QUANT_ALGOS:
        return False
    layer = layers_of(weights)[0]
    weight = weights[f"{layer}.weight"].char()
    side = {"weight": weight, "weight_scale": torch.ones(()), "comfy_quant": conf(format=form)}
    text = error(comfyui, weights | {f"{layer}.{leaf}": tensor for leaf, tensor in side.items()})
    return f"quantised as {form}, which ComfyUI" in text and "update ComfyUI" in text


@pytest.mark.parametrize("form", FORMATS)
def test_close_to_the_same_weights_unquantised(comfyui, plain, form):
    weights, net = plain
    if is_told_to_update(comfyui, weights, form):
        return
    path = save_quantised(comfyui, quantise(comfyui, weights, form))
    patcher = comfyui.model.load_model(str(path))
    kinds = {type(p).__name__ for p in patcher.model.diffusion_model.parameters()}
    assert "QuantizedTensor" in kinds  # they are still quantised in the model
    db = closeness(comfyui, path, net)
    assert CLOSEST[form] < db < 80, db


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chosen_dtype_takes_the_quantisation_out(comfyui, plain, form, dtype):
    weights, _ = plain
    if is_told_to_update(comfyui, weights, form):
        return
    path = save_quantised(comfyui, quantise(comfyui, weights, form))
    as_stored, *_ = decoded(comfyui, path)
    cast, *_, patcher = decoded(comfyui, path, dtype=dtype)
    assert patcher.model.diffusion_model.patch_blocks[0].attn.qkv_x.weight.dtype == dtype
    assert type(patcher.model.diffusion_model.patch_blocks[0].attn.qkv_x.weight) is torch.nn.Parameter
    assert psnr(cast, as_stored) > 35


def old_form(tensors: dict, mark: str) -> dict:
    """The names of before comfy_quant."""
    out = {k.replace(".weight_scale", ".scale_weight"): v for k, v in tensors.items() if not k.endswith(".comfy_quant")}
    return out | {mark: torch.zeros(0, dtype=torch.float8_e4m3fn)}


def in_metadata(tensors: dict) -> tuple[dict, dict]:
    entries = {
        k.removesuffix(".comfy_quant"): {"format": "float8_e4m3fn"} for k in tensors if k.endswith("comfy_quant")
    }
    bare = {k: v for k, v in tensors.items() if not k.endswith(".comfy_quant")}
    return bare, {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": entries})}


def test_every_way_of_writing_it_down_is_read(comfyui, plain):
    weights, _ = plain
    tensors = quantise(comfyui, weights, "float8_e4m3fn")
    first, *_ = decoded(comfyui, save_quantised(comfyui, tensors))
    old, *_ = decoded(comfyui, save_quantised(comfyui, old_form(tensors, "net.scaled_fp8")))
    assert torch.allclose(old, first, atol=1e-4)  # files align their tensors otherwise
    bare, metadata = in_metadata(tensors)
    told, *_ = decoded(comfyui, save_quantised(comfyui, bare, metadata=metadata))
    assert torch.allclose(told, first, atol=1e-4)
    other = {k.replace("net.", "model.diffusion_model.", 1): v for k, v in tensors.items()}
    prefixed, *_ = decoded(comfyui, save_quantised(comfyui, other))
    assert torch.allclose(prefixed, first, atol=1e-4)


def test_quantised_halves_of_comfyuis_split_modulation(comfyui, plain):
    weights, net = plain
    halves = split(weights)
    layers = sorted({k.removesuffix(".weight") for k in halves if "modulation_m" in k and k.endswith(".weight")})
    assert len(layers) == 4
    path = save_quantised(comfyui, quantise(comfyui, halves, "float8_e4m3fn", layers))
    assert closeness(comfyui, path, net) > CLOSEST["float8_e4m3fn"]


def test_layers_that_stay_exact_are_taken_out_of_it(comfyui, plain, monkeypatch):
    """Of a large network some layers are float32 whatever the rest is; a file may have them quantised all the same."""
    weights, net = plain
    layers = [*layers_of(weights), "net.t_embedder.mlp.0", "net.lq_proj.output_heads.0"]
    path = save_quantised(comfyui, quantise(comfyui, weights, "float8_e4m3fn", layers))
    monkeypatch.setattr(comfyui.model, "SMALL", 0)
    monkeypatch.setattr(comfyui.model.comfy.model_management, "unet_dtype", lambda **_: torch.bfloat16)
    out, made, text, patcher = decoded(comfyui, path)
    network = patcher.model.diffusion_model
    assert network.t_embedder.mlp[0].weight.dtype == network.final_layer.linear.weight.dtype == torch.float32
    assert type(network.lq_proj.output_heads[0].weight.data).__name__ == "QuantizedTensor"
    assert psnr(out, by_core(net, lq_of(made[0]), 0.1, text, steps=1)) > 18


def test_saved_and_loaded_again(comfyui, plain):
    weights, _ = plain
    out, *_, patcher = decoded(comfyui, save_quantised(comfyui, quantise(comfyui, weights, "float8_e4m3fn")))
    model = patcher.model
    saved = model.state_dict_for_saving(model.diffusion_model.state_dict())
    path = comfyui.folder / "saved_quantised.safetensors"
    save_file({k: v.contiguous() for k, v in saved.items()}, path)
    again, *_ = decoded(comfyui, path)
    assert torch.allclose(again, out, atol=1e-4)


def error(comfyui, tensors, **options) -> str:
    with pytest.raises(ValueError) as caught:
        comfyui.model.load_model(str(save_quantised(comfyui, tensors, **options)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_format_that_this_comfyui_lacks(comfyui, plain, monkeypatch):
    weights, _ = plain
    tensors = quantise(comfyui, weights, "float8_e4m3fn")
    algos = importlib.import_module("comfy.quant_ops").QUANT_ALGOS
    monkeypatch.delitem(algos, "float8_e4m3fn")
    text = error(comfyui, tensors)
    assert "quantised as float8_e4m3fn, which ComfyUI" in text and "update ComfyUI" in text


def test_formats_that_this_pack_does_not_run(comfyui, plain):
    weights, _ = plain
    layer = layers_of(weights)[0]
    side = {f"{layer}.weight_scale": torch.ones(()), f"{layer}.comfy_quant": conf(format="nvfp4")}
    assert "quantised as nvfp4" in error(comfyui, weights | side)
    side[f"{layer}.comfy_quant"] = torch.tensor([1, 2], dtype=torch.uint8)
    assert "comfy_quant cannot be read" in error(comfyui, weights | side)
    side[f"{layer}.comfy_quant"] = conf(format="float8_e4m3fn")
    assert "no weight of 8 bits" in error(comfyui, weights | side)
    assert "_quantization_metadata cannot be read" in error(comfyui, weights, metadata={"_quantization_metadata": "{"})


def test_the_core_alone_says_where_they_run(comfyui, plain):
    weights, _ = plain
    path = save_quantised(comfyui, quantise(comfyui, weights, "float8_e4m3fn"))
    with pytest.raises(ValueError, match="quantised \\(float8_e4m3fn\\): ComfyUI runs such files"):
        load_network(path)
