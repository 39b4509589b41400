"""Quantised checkpoints, as ComfyUI writes them: which layers they are, and the tensors beside each weight.

A quantised Linear has, beside its weight of 8 bits, `weight_scale` and sometimes `input_scale`, and a `comfy_quant`
entry: JSON as uint8 [n] with the key `format`. Files may keep those entries in `_quantization_metadata` of their
metadata instead; older ones have `scaled_fp8`, `scale_weight` and `scale_input`. What the numbers mean is ComfyUI's
business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..entries import read_object
from ..printable import printable, quoted
from ..tensor_files import SMALL

FORMATS = ("float8_e4m3fn", "float8_e5m2", "mxfp8", "int8_tensorwise")  # those that keep a weight's shape
CONF, METADATA, OLD_MARK = "comfy_quant", "_quantization_metadata", "scaled_fp8"
_SIDE = (CONF, "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale")
_OLD_NAMES = {"scale_weight": "weight_scale", "scale_input": "input_scale"}

_SCALES = (torch.float32, torch.float16, torch.bfloat16)
_E8M0 = getattr(torch, "float8_e8m0fnu", torch.uint8)

Layers = dict[str, dict[str, Tensor]]  # layer name -> its side tensors by their last name, CONF among them


def take_quantisation(state_dict: dict[str, Tensor], metadata: Mapping[str, str]) -> Layers:
    """Take the side tensors of quantised layers out of a state dict; empty where none is quantised.

    Names stay as they are in the file, prefix and all. Raises ValueError in one line for entries that cannot be read
    and for formats that are not in FORMATS.
    """
    layers: Layers = {}
    for name in list(state_dict):
        layer, _, leaf = name.rpartition(".")
        leaf = _OLD_NAMES.get(leaf, leaf)
        if layer and leaf in _SIDE and f"{layer}.weight" in state_dict:
            layers.setdefault(layer, {})[leaf] = state_dict.pop(name)
    mark = next((k for k in state_dict if k.rpartition(".")[2] == OLD_MARK), None)
    if mark is not None:
        _name_old_formats(layers, state_dict.pop(mark))
    for layer, conf in _metadata_layers(metadata).items():
        if f"{layer}.weight" in state_dict:
            layers.setdefault(layer, {})[CONF] = conf_tensor(conf)
    # a scale without a format belongs to a layer that was left as it is
    layers = {layer: side for layer, side in layers.items() if CONF in side}
    for layer, side in layers.items():
        _check_layer(layer, state_dict[f"{layer}.weight"], side)
    return layers


def format_of(side: Mapping[str, Tensor]) -> str:
    """The format that the CONF entry of a layer names that was checked."""
    return _conf(side)["format"]


def _conf(side: Mapping[str, Tensor]) -> dict:
    stored = side[CONF]
    if stored.dtype != torch.uint8 or stored.ndim != 1 or stored.numel() > SMALL or stored.is_meta:
        raise ValueError(f"its entry {CONF} cannot be read: JSON as uint8 [n] is needed")
    conf = read_object(bytes(stored.tolist()), f"its entry {CONF}")
    # ComfyUI takes what is in it as it is
    sizes = [part.get("convrot_groupsize", 256) for part in (conf, conf.get("params", {})) if isinstance(part, dict)]
    if len(sizes) < 2 or not all(type(size) is int and 0 < size <= SMALL for size in sizes):
        raise ValueError(f"its entry {CONF} cannot be read: its params or group size are of no use")
    return conf


def _check_layer(layer: str, weight: Tensor, side: Mapping[str, Tensor]) -> None:
    form, shown = _conf(side).get("format"), printable(layer)
    if form not in FORMATS:
        raise ValueError(
            f"its weights are quantised as {quoted(form) if form is None else printable(form)} ({shown}), which this "
            f"pack does not run; it runs {', '.join(FORMATS)}: use such a file, or the bf16 one"
        )
    if weight.dtype.itemsize != 1 or weight.ndim != 2 or "weight_scale" not in side:
        raise ValueError(f"the layer {shown} is marked as {form}, but has no weight of 8 bits with its scale")
    for leaf, scale in side.items():
        if leaf == CONF:
            continue
        count = _scales(form, *weight.shape) if leaf == "weight_scale" else (1,)
        blocks = (form, leaf) == ("mxfp8", "weight_scale")
        right = scale.dtype in ((torch.uint8, _E8M0) if blocks else _SCALES)
        if scale.numel() not in count or scale.ndim > 2 or not right:
            raise ValueError(
                f"the layer {shown} has a {leaf} of shape {list(scale.shape)} and {scale.dtype}, which does not fit "
                f"its weight {list(weight.shape)} as {form}: the file was damaged when it was converted; use another"
            )


def _scales(form: str, rows: int, columns: int) -> tuple[int, ...]:
    """How many scales a weight of that size can have."""
    if form == "mxfp8":  # one for every 32 columns, kept in blocks of 128 x 4
        return (128 * math.ceil(rows / 128) * 4 * math.ceil(columns / 128),)
    return (1, rows) if form == "int8_tensorwise" else (1,)


def formats_of(layers: Layers) -> list[str]:
    """The formats that occur, sorted."""
    return sorted({format_of(side) for side in layers.values()})


def _name_old_formats(layers: Layers, mark: Tensor) -> None:
    conf: dict = {"format": "float8_e5m2" if mark.dtype == torch.float8_e5m2 else "float8_e4m3fn"}
    if mark.numel() == 2:
        conf["full_precision_matrix_mult"] = True
    for side in layers.values():
        side.setdefault(CONF, conf_tensor(conf))


def _metadata_layers(metadata: Mapping[str, str]) -> dict:
    if METADATA not in metadata:
        return {}
    layers = read_object(metadata[METADATA], f"its metadata entry {METADATA}").get("layers")
    if not isinstance(layers, dict) or not all(isinstance(conf, dict) for conf in layers.values()):
        raise ValueError(f"its metadata entry {METADATA} cannot be read: it has no list of layers")
    return layers


def conf_tensor(conf: Mapping) -> Tensor:
    """A layer's format as ComfyUI stores it: JSON in a tensor of bytes."""
    return torch.tensor(list(json.dumps(conf).encode()), dtype=torch.uint8)
