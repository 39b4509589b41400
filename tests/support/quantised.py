"""Quantised checkpoints as ComfyUI's own operations make them."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict

import torch
from safetensors.torch import save_file

from support.tiny import tiny_config

# Sides that the blocks of every format divide; the rest as in tiny.py.
BIG = {"hidden_size": 64, "mlp_size": 96, "pixel_attn_size": 32, "lq_width": 32, "caption_width": 32}


def layers_of(weights: dict) -> list[str]:
    """The Linear layers that Comfy-Org quantises: those of the patch blocks."""
    names = (k for k, v in weights.items() if v.ndim == 2 and "patch_blocks." in k and k.endswith(".weight"))
    return [k.removesuffix(".weight") for k in names]


def conf(**entries) -> torch.Tensor:
    return torch.tensor(list(json.dumps(entries).encode()), dtype=torch.uint8)


def quantise(comfyui, weights: dict, form: str, layers=None) -> dict:
    """The same weights as ComfyUI would store them, in one of FORMATS."""
    quant = importlib.import_module("comfy.quant_ops")
    layout = quant.QUANT_ALGOS[form]["comfy_tensor_layout"]
    out = dict(weights)
    for layer in layers or layers_of(weights):
        stored = quant.QuantizedTensor.from_float(weights[f"{layer}.weight"], layout, scale="recalculate")
        out |= stored.state_dict(f"{layer}.weight")
        out[f"{layer}.comfy_quant"] = conf(format=form)
    return out


def save_quantised(comfyui, tensors: dict, version="v1.5", metadata=None):
    path = comfyui.folder / f"{len(list(comfyui.folder.iterdir()))}_quantised.safetensors"
    config = {"pid_config": json.dumps(asdict(tiny_config("flux", version, **BIG)))}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, config | (metadata or {}))
    return path
