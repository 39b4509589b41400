"""Small pictures for our own parts of the front end, in ComfyUI's temp folder."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def save_picture(image: Tensor, name: str, longest: int, exact: bool = False) -> dict[str, str]:
    """Write an image [H, W, C] in [0, 1] as a JPEG, its longer side at most `longest` pixels.

    Returns what ComfyUI's /view wants to know. name: tells the picture and size apart; what is there already stays.
    exact: for a close look, with little loss and colours at full resolution.
    """
    file = Path(folder_paths.get_temp_directory()) / "pidkit" / f"{name}.jpg"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        to_pil(image, longest).save(file, quality=95 if exact else 90, subsampling=0 if exact else 2)
    return {"filename": file.name, "subfolder": "pidkit", "type": "temp"}


def to_pil(image: Tensor, longest: int | None = None) -> Image.Image:
    """[H, W, C] in [0, 1] as an 8-bit RGB picture, made smaller where it is larger than that."""
    pixels = image[..., :3].detach().float().cpu().nan_to_num().movedim(-1, 0)
    pixels = pixels.expand(3, -1, -1)
    scale = 1 if longest is None else min(1, longest / max(pixels.shape[1:]))
    if scale < 1:
        size = [max(1, round(side * scale)) for side in pixels.shape[1:]]
        pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().movedim(0, -1).contiguous().numpy())
