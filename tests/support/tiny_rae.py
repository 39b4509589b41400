"""The two encoders of RAE with random weights: transformers' own classes in their real width, one layer deep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

CHANNELS = {"dinov2": 768, "siglip": 1152}
CELLS = {"dinov2": 32, "siglip": 16}


def tiny_encoder(family: str, *, layers: int = 1, mlp: int = 1, seed: int = 7) -> nn.Module:
    """A whole class of transformers' with every weight random. mlp: its width, of dinov2 in 768, of siglip in 64."""
    import transformers

    width = CHANNELS[family]
    shared = {"hidden_size": width, "num_hidden_layers": layers, "patch_size": 14}
    if family == "dinov2":
        config = transformers.Dinov2WithRegistersConfig(
            **shared, num_attention_heads=12, mlp_ratio=mlp, image_size=518, num_register_tokens=4
        )
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        config = transformers.SiglipVisionConfig(
            **shared, num_attention_heads=16, intermediate_size=64 * mlp, image_size=224, vision_use_head=False
        )
        model = transformers.SiglipVisionModel(config)
    generator = torch.Generator().manual_seed(seed)
    for value in model.parameters():
        value.data = torch.randn(value.shape, generator=generator) * (0.4 if value.ndim == 1 else 0.05)
    return model.eval()


def as_in_files(family: str, model: nn.Module) -> dict[str, Tensor]:
    """Its weights by the names of the files on the hub."""
    old = {f"{name[0]}_proj": f"attention.{name}" for name in ("query", "key", "value")} | {"o_proj": "output.dense"}
    weights = {}
    for name, value in model.state_dict().items():
        if family == "dinov2":
            for new, before in old.items():
                name = name.replace(f".attention.{new}.", f".attention.{before}.")
        else:
            name = f"vision_model.{name.removeprefix('vision_model.')}"
        weights[name] = value.contiguous()
    return weights


def tiny_statistics(seed: int = 11) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (CHANNELS["dinov2"], CELLS["dinov2"], CELLS["dinov2"])
    return {"mean": 0.3 * torch.randn(shape, generator=generator), "var": 0.5 + torch.rand(shape, generator=generator)}


def save_encoder(path: Path, family: str, **options) -> Path:
    """The file; of dinov2 its statistics beside it, in a file of PyTorch's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(as_in_files(family, tiny_encoder(family, **options)), path)
    if family == "dinov2":
        torch.save(tiny_statistics(), path.with_name("rae_dinov2_stat.pt"))
    return path


@torch.inference_mode()
def reference(family: str, image: Tensor) -> Tensor:
    """What `tiny_encoder` makes of a picture [B, H, W, 3], in a few lines from the families' own description."""
    model: Any = tiny_encoder(family)
    x = image.permute(0, 3, 1, 2)
    if family == "dinov2":
        x = F.interpolate(x, size=(448, 448), mode="bicubic", align_corners=False)
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (x - mean[:, None, None]) / deviation[:, None, None]
        model.layernorm = torch.nn.LayerNorm(768, eps=1e-6, elementwise_affine=False)
        z = model(x).last_hidden_state[:, 5:]
        z = z.transpose(1, 2).reshape(-1, 768, 32, 32)
        statistics = tiny_statistics()
        return (z - statistics["mean"]) / torch.sqrt(statistics["var"] + 1e-5)
    x = F.interpolate(x, size=(224, 224), mode="bicubic", align_corners=False, antialias=True)
    getattr(model, "vision_model", model).post_layernorm = torch.nn.Identity()
    z = model((x - 0.5) / 0.5).last_hidden_state
    return F.layer_norm(z, (1152,), eps=1e-6).transpose(1, 2).reshape(-1, 1152, 16, 16)
