"""Tiny PiD checkpoints with random weights: the released layout, the sizes of the golden cases."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pid_core import LATENT_FAMILIES, PiDConfig, PiDNetwork

SIZES = {
    "hidden_size": 32,
    "num_heads": 2,
    "patch_depth": 4,
    "mlp_size": 85,
    "pixel_hidden_size": 4,
    "pixel_attn_size": 24,
    "pixel_num_heads": 2,
    "pixel_depth": 2,
    "pixel_mlp_size": 16,
    "caption_width": 24,
    "caption_length": 12,
    "lq_width": 16,
    "lq_res_blocks": 2,
    "lq_interval": 2,
}
PIXELDIT = {"latent_channels": 0, "rope_mode": "original", "schedule": "undistilled"}
V15 = {"rope_reference": 2048, "lq_padding": "replicate", "gate": "token", "pit_injection": True}


def tiny_config(family: str = "flux", version: str = "v1", **changes) -> PiDConfig:
    """family: a latent family, or "pixeldit". version: "v1" or "v1.5". changes: fields of PiDConfig."""
    if family == "pixeldit":
        return PiDConfig(**({k: v for k, v in SIZES.items() if not k.startswith("lq_")} | PIXELDIT | changes))
    row = LATENT_FAMILIES[family]
    values = SIZES | {"latent_channels": row.channels, "latent_down": row.down, "sr_scale": row.sr_scale}
    if version == "v1.5":
        values |= V15 | ({"latent_unpack": 2} if row.name == "flux2" else {})
    if row.name == "rgb":  # like the bundled model
        values |= {"patch_size": 8, "prediction": "x0"}
    return PiDConfig(**(values | {"family": row.name} | changes))


def tiny_state_dict(
    family: str = "flux", version: str = "v1", seed: int = 0, prefix: str = "net.", **changes
) -> dict[str, Tensor]:
    """Random float32 weights, scaled so that every part of the network changes the output."""
    shapes = {
        k: v.shape for k, v in PiDNetwork(tiny_config(family, version, **changes), device="meta").state_dict().items()
    }
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name in sorted(shapes):
        value = torch.randn(shapes[name], generator=generator)
        if name.endswith("log_alpha"):
            value = 1.6 + 0.2 * value
        elif value.ndim > 1:
            value = value / value[0].numel() ** 0.5
        elif name.endswith("weight"):
            value = 1 + 0.15 * value
        else:
            value = 0.1 * value
        weights[prefix + name] = value
    return weights


def save_tiny(
    path: Path,
    family: str = "flux",
    version: str = "v1",
    *,
    caption: int = 0,
    dtype=torch.float32,
    metadata: bool = True,
    **changes,
) -> Path:
    """Write a tiny checkpoint. caption: tokens of a default caption, 0: none. metadata: with its configuration."""
    weights = {k: v.to(dtype) for k, v in tiny_state_dict(family, version, **changes).items()}
    changes.pop("seed", None), changes.pop("prefix", None)
    config = tiny_config(family, version, **changes)
    if caption:
        generator = torch.Generator().manual_seed(99)
        weights["default_caption"] = torch.randn(caption, config.caption_width, generator=generator)
    save_file(weights, path, {"pid_config": json.dumps(asdict(config))} if metadata else None)
    return path


def put_tiny(comfy, name: str, family: str = "flux", version: str = "v1", **options) -> Path:
    """A tiny checkpoint `name`.safetensors with a default caption in the server's models folder, if it is not there."""
    path = comfy.models / "diffusion_models" / f"{name}.safetensors"
    if not path.exists():
        save_tiny(path, family, version, caption=3, **options)
    return path


def save_vae(path: Path, channels: int = 16) -> Path:
    """A VAE of factor 8 with random weights, in the smallest layout that VAELoader takes. Needs ComfyUI's modules."""
    import comfy.taesd.taesd

    shapes = comfy.taesd.taesd.TAESD(latent_channels=channels).state_dict()
    generator = torch.Generator().manual_seed(3)
    weights = {
        k: torch.randn(v.shape, generator=generator) / max(1, v[0].numel() if v.ndim else 1) ** 0.5
        for k, v in shapes.items()
    }
    save_file(weights, path)
    return path
