"""VAEs with random weights in the layouts of Flux, SDXL and Qwen-Image, as their files have them.

Needs ComfyUI's modules. The encoder of the first two is of full width, which ComfyUI fixes; the rest is small.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

IMAGE = {
    "double_z": True,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
VIDEO = {
    "dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}


def save_family_vae(path: Path, family: str) -> Path:
    """family: flux, sdxl or qwenimage. The file is in bfloat16."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in _model(family).state_dict().items()}
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if value.ndim > 1 and not name.endswith("gamma"):
            value = value / value[0].numel() ** 0.5
        elif name.endswith(("weight", "gamma")):
            value = 1 + 0.1 * value
        else:
            value = 0.1 * value
        weights[name] = value.bfloat16()
    save_file(weights, path)
    return path


def _model(family: str) -> torch.nn.Module:
    if family == "qwenimage":
        from comfy.ldm.wan.vae import WanVAE

        return WanVAE(**VIDEO)
    from comfy.ldm.models.autoencoder import AutoencoderKL, AutoencodingEngine

    config = IMAGE | {"z_channels": 16 if family == "flux" else 4}
    decoder = config | {"ch": 32}
    if family == "sdxl":
        return AutoencoderKL(ddconfig=config, embed_dim=4, decoder_ddconfig=decoder)
    parts = "comfy.ldm.modules.diffusionmodules.model"
    return AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": f"{parts}.Encoder", "params": config},
        decoder_config={"target": f"{parts}.Decoder", "params": decoder},
    )
