"""An RAE family's encoder under ComfyUI's model management: on the card while it works, and let go of as any model."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from torch import Tensor

from ...pid_core.rae.encoder import AT_ONCE, RAEEncoder

DTYPES = {"auto": None, "bfloat16": torch.bfloat16, "float32": torch.float32}


def dtype_of(choice: str) -> torch.dtype:
    """auto: bfloat16 where the device that encodes multiplies in it, else float32."""
    chosen = DTYPES[choice]
    if chosen is not None:
        return chosen
    device = comfy.model_management.text_encoder_device()
    return torch.bfloat16 if comfy.model_management.should_use_bf16(device) else torch.float32


def encode_pictures(encoder: RAEEncoder, image: Tensor) -> Tensor:
    """[B, H, W, 3 or 4] in [0, 1] -> [B, C, h, w], float32 where ComfyUI keeps what is between nodes.

    Cancel ends it between two parts of the batch.
    """
    device = comfy.model_management.text_encoder_device()
    patcher = comfy.model_patcher.ModelPatcher(
        encoder, load_device=device, offload_device=comfy.model_management.text_encoder_offload_device()
    )
    comfy.model_management.load_model_gpu(patcher)
    bar, latents = comfy.utils.ProgressBar(len(image)), []
    for part in image.split(AT_ONCE):
        comfy.model_management.throw_exception_if_processing_interrupted()
        latents.append(encoder(part.cpu()).to(comfy.model_management.intermediate_device()))
        bar.update(len(part))
    return torch.cat(latents)
