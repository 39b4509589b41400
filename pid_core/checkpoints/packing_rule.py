"""Which layers `convert --to` packs into 8 bits, and why the others stay as they are."""

from __future__ import annotations

import re

import torch
from torch import nn

from ..model.config import PiDConfig
from ..model.network import PiDNetwork
from .packing import PACKED, fits

# What a layer is called -> why it is not packed. The first that matches counts; every other Linear whose sides fit is
# packed: attention and MLPs of the patch blocks, 793 of 1,400 million parameters and three quarters of the products.
# Measured one kind at a time, decodes of 4 steps, fp8 with rounded inputs, PSNR: on the former pid_nano a pixel's own
# modulation alone costs 41 dB, the latent's features 42 and 57, the noise level's embedding 63, all that is packed 70.
# On random weights of six patch blocks: the pixel blocks' modulation 37 and their other layers 41 to 45 each, the
# latent's features 39 and 41, the embeddings 43, the patch blocks' modulation 47, all that is packed 44.
NOT_PACKED = {
    r"pixel_blocks\.": "single pixels, where the decode loses most",
    r"patch_blocks\.\d+\.adaLN_modulation": "one row per step, read once per run: it need not stay on the card",
    r"lq_proj\.|pit_lq_gate\.": "the latent's way in, which holds the picture to it; small",
    r"\w+_embedder\.": "the begin, on which every later layer builds; small",
    r"final_layer\.": "the end, where a rounding is a pixel's; small",
}


def packed_layers(config: PiDConfig, to: str) -> list[str]:
    """The names of the layers that are packed, in the network's order. Raises ValueError where there is none."""
    layers = linear_layers(config)
    packed = [name for name, shape in layers.items() if why_not_packed(name) is None and fits(to, shape)]
    if not packed:
        rows, columns = PACKED[to].multiples
        raise ValueError(
            f"no layer of this checkpoint can be packed as {to}: its weights' sides are no multiples of {rows} and "
            f"{columns}"
        )
    return packed


def why_not_packed(layer: str) -> str | None:
    """The reason why a layer stays as it is; None: it is packed, where its sides fit."""
    return next((why for pattern, why in NOT_PACKED.items() if re.match(pattern, layer)), None)


def linear_layers(config: PiDConfig) -> dict[str, tuple[int, ...]]:
    """Every Linear's name and its weight's shape."""
    with torch.device("meta"):
        modules = PiDNetwork(config).named_modules()
    return {name: tuple(module.weight.shape) for name, module in modules if isinstance(module, nn.Linear)}
