"""Rebuild the golden cases' weights and inputs from their recipe: numpy's legacy generator, whose stream is frozen."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).with_name("golden")
NAMES = ("flux_v1", "flux2_v1", "sdxl_v1", "flux_v1pt5", "flux2_v1pt5")


def draw(seed: int, shape) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def spec(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def outputs(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / f"{name}.outputs.safetensors")


def weights(case: dict) -> dict[str, Tensor]:
    tensors = case["tensors"]
    state = {}
    for index, name in enumerate(sorted(tensors)):
        shape = tensors[name]
        r = torch.as_tensor(draw(case["seed"] + index, shape))
        if name.endswith("log_alpha"):
            value = math.log(5) + 0.2 * r
        elif name.endswith("y_pos_embedding"):
            value = 0.5 * r
        elif len(shape) >= 2:
            value = r / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            value = 1 + 0.15 * r
        else:
            value = 0.1 * r
        state[name] = value.to(torch.bfloat16).float()
    return state
