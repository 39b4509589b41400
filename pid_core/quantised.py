"""Quantised checkpoints, as ComfyUI writes them: which layers they are, and the tensors beside each weight.

A quantised Linear has, beside its weight of 8 bits, `weight_scale` and sometimes `input_scale`, and a `comfy_quant`
entry: JSON as uint8 [n] with the key `format`. Files may keep those entries in `_quantization_metadata` of their
metadata instead; older ones have `scaled_fp8`, `scale_weight` and `scale_input`. What the numbers mean is ComfyUI's
business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

FORMATS = ("float8_e4m3fn", "float8_e5m2", "mxfp8", "int8_tensorwise")  # those that keep a weight's shape
CONF, METADATA, OLD_MARK = "comfy_quant", "_quantization_metadata", "scaled_fp8"
_SIDE = (CONF, "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale")
_OLD_NAMES = {"scale_weight": "weight_scale", "scale_input": "input_scale"}

Layers = dict[str, dict[str, Tensor]]  # layer name -> its side tensors by their last name, CONF among them


def take_quantisation(state_dict: dict[str, Tensor], metadata: Mapping[str, str]) -> Layers:
    """Take the side tensors of quantised layers out of a state dict; empty where none is quantised.

    Names stay as they are in the file, prefix and all. Raises ValueError in one line for entries that cannot be read
    and for formats that are not in FORMATS.
    """
    layers: Layers = {}
    for name in [k for k in state_dict if isinstance(k, str)]:
        layer, _, leaf = name.rpartition(".")
        leaf = _OLD_NAMES.get(leaf, leaf)
        if layer and leaf in _SIDE and f"{layer}.weight" in state_dict:
            layers.setdefault(layer, {})[leaf] = state_dict.pop(name)
    mark = next((k for k in state_dict if isinstance(k, str) and k.rpartition(".")[2] == OLD_MARK), None)
    if mark is not None:
        _name_old_formats(layers, state_dict.pop(mark))
    for layer, conf in _metadata_layers(metadata).items():
        if f"{layer}.weight" in state_dict:
            layers.setdefault(layer, {})[CONF] = _as_tensor(conf)
    # a scale without a format belongs to a layer that was left as it is
    layers = {layer: side for layer, side in layers.items() if CONF in side}
    for layer, side in layers.items():
        form = format_of(side)
        if form not in FORMATS:
            raise ValueError(
                f"its weights are quantised as {form} ({layer}), which this pack does not run; "
                f"it runs {', '.join(FORMATS)}: use such a file, or the bf16 one"
            )
        if state_dict[f"{layer}.weight"].dtype.itemsize != 1 or "weight_scale" not in side:
            raise ValueError(f"the layer {layer} is marked as {form}, but has no weight of 8 bits with its scale")
    return layers


def format_of(side: Mapping[str, Tensor]) -> str | None:
    """The format that a layer's CONF entry names. Raises ValueError where it cannot be read."""
    try:
        conf = json.loads(bytes(side[CONF].tolist()))
        return conf.get("format")
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"its entry {CONF} cannot be read: JSON as uint8 [n] is needed") from None


def formats_of(layers: Layers) -> list[str]:
    """The formats that occur, sorted."""
    return sorted({format_of(side) for side in layers.values()})


def _name_old_formats(layers: Layers, mark: Tensor) -> None:
    conf: dict = {"format": "float8_e5m2" if mark.dtype == torch.float8_e5m2 else "float8_e4m3fn"}
    if mark.numel() == 2:
        conf["full_precision_matrix_mult"] = True
    for side in layers.values():
        side.setdefault(CONF, _as_tensor(conf))


def _metadata_layers(metadata: Mapping[str, str]) -> dict:
    if METADATA not in metadata:
        return {}
    try:
        return dict(json.loads(metadata[METADATA])["layers"])
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"its metadata entry {METADATA} cannot be read") from None


def _as_tensor(conf: Mapping) -> Tensor:
    return torch.tensor(list(json.dumps(conf).encode()), dtype=torch.uint8)
