"""The model files that the example workflows name: where each lies, as front end and managers read it."""

from __future__ import annotations

import sys

from comfy_env import ROOT

sys.path.insert(0, str(ROOT))
from pid_core.assets import NANO_PATH
from pid_core.checkpoints.reading import read_checkpoint
from pid_core.hub.catalogue import get_file

HUB = "https://huggingface.co"
# Folder, repository, path in it: files of the generators, which PiD Download does not know.
GENERATORS = (
    ("diffusion_models", "Comfy-Org/flux1-dev", "flux1-dev.safetensors"),
    ("text_encoders", "comfyanonymous/flux_text_encoders", "clip_l.safetensors"),
    ("text_encoders", "comfyanonymous/flux_text_encoders", "t5xxl_fp16.safetensors"),
    ("diffusion_models", "Comfy-Org/flux2-klein", "split_files/diffusion_models/flux-2-klein-4b.safetensors"),
    ("checkpoints", "Comfy-Org/stable-diffusion-3.5-fp8", "sd3.5_large_fp8_scaled.safetensors"),
    ("checkpoints", "stabilityai/stable-diffusion-xl-base-1.0", "sd_xl_base_1.0.safetensors"),
    (
        "diffusion_models",
        "Comfy-Org/Qwen-Image_ComfyUI",
        "split_files/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
    ),
    (
        "text_encoders",
        "Comfy-Org/Qwen-Image_ComfyUI",
        "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    ),
)
_BY_HAND = {path.rpartition("/")[2]: (folder, repo, path) for folder, repo, path in GENERATORS}


def bundled_steps() -> int:
    """In how many steps the bundled model draws best, for KSampler, which cannot ask it."""
    return read_checkpoint(NANO_PATH).config.steps


def model_entry(name: str) -> dict[str, str] | None:
    """A file as `properties.models` has it (name, url, directory, hash where it is known); None for another text."""
    if not name.endswith((".safetensors", ".pth", ".pt")):
        return None
    if name in _BY_HAND:
        folder, repo, path = _BY_HAND[name]
        return {"name": name, "url": _url(repo, path), "directory": folder}
    file = get_file(name)
    entry = {"name": name, "url": _url(file.repo, file.path), "directory": file.folder}
    return entry | ({"hash": file.sha256, "hash_type": "SHA256"} if file.sha256 else {})


def by_hand(name: str, more: str = "") -> str:
    """A line of a note: a file that ComfyUI offers to download, or that is put there by hand."""
    folder, repo, _ = _BY_HAND[name]
    return f"- **{folder}**: {name}, from [{repo}]({HUB}/{repo}){more}"


def fetched(name: str, more: str = "") -> str:
    """A line of a note: a file that a node of the workflow fetches."""
    file = get_file(name)
    size = f" ({file.size / 1e9:.1f} GB)" if file.size else ""
    return f"- **{file.folder}**: {name}{size}, from [{file.repo}]({file.page}){more}"


def _url(repo: str, path: str) -> str:
    return f"{HUB}/{repo}/resolve/main/{path}"
