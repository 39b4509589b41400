"""API-format graphs around our nodes, and the files they read and write."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def link(node: str, output: int = 0) -> list:
    return [node, output]


def put_latent(comfy, name: str, latent: Tensor) -> str:
    """Write a raw latent into the input folder, for LoadLatent."""
    save_file(
        {"latent_tensor": latent.contiguous(), "latent_format_version_0": torch.tensor([])},
        comfy.input / f"{name}.latent",
    )
    return f"{name}.latent"


def decode_graph(model: str, latent: str, *, conditioning: dict | None = None, sampler: dict | None = None) -> dict:
    """LoadLatent, PiD Latent Conditioning, KSampler, VAE Decode, SaveImage; SaveLatent after the sampler."""
    return {
        "latent": {"class_type": "LoadLatent", "inputs": {"latent": latent}},
        "model": {"class_type": "PiDKitLoader", "inputs": {"model_name": model, "dtype": "auto"}},
        "pid": {
            "class_type": "PiDKitConditioning",
            "inputs": {
                "latent": link("latent"),
                "latent_format": "auto",
                "degrade_sigma": 0.0,
                "latent_noise": "add",
                "noise_seed": 0,
                "model": link("model"),
            }
            | (conditioning or {}),
        },
        "sampler": {
            "class_type": "KSampler",
            "inputs": {
                "model": link("model"),
                "positive": link("pid", 0),
                "negative": link("pid", 1),
                "latent_image": link("pid", 2),
                "seed": 5,
                "steps": 4,
                "cfg": 1.0,
                "sampler_name": "lcm",
                "scheduler": "simple",
                "denoise": 1.0,
            }
            | (sampler or {}),
        },
        "save": {
            "class_type": "SaveLatent",
            "inputs": {"samples": link("sampler"), "filename_prefix": "pixels"},
        },
    } | image_nodes("sampler")


def pid_decode_graph(model: str, latent: str, **inputs) -> dict:
    """LoadLatent, PiD Decode, SaveImage."""
    return {
        "latent": {"class_type": "LoadLatent", "inputs": {"latent": latent}},
        "model": {"class_type": "PiDKitLoader", "inputs": {"model_name": model, "dtype": "auto"}},
        "decode": {
            "class_type": "PiDKitDecode",
            "inputs": {
                "model": link("model"),
                "latent": link("latent"),
                "degrade_sigma": 0.0,
                "steps": 4,
                "seed": 5,
            }
            | inputs,
        },
        "png": {"class_type": "SaveImage", "inputs": {"images": link("decode"), "filename_prefix": "test"}},
    }


def image_graph(name: str) -> dict:
    """LoadImage, SaveImage."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "same"}},
    }


def image_nodes(sampler: str) -> dict:
    return {
        "vae": {"class_type": "PiDKitPixelVAE", "inputs": {}},
        "image": {"class_type": "VAEDecode", "inputs": {"samples": link(sampler), "vae": link("vae")}},
        "png": {"class_type": "SaveImage", "inputs": {"images": link("image"), "filename_prefix": "test"}},
    }


def saved_pixels(comfy, finished, node: str = "save") -> Tensor:
    """What a SaveLatent node wrote, float32 [B, 3, H, W]."""
    entry = finished.outputs[node]["latents"][0]
    return load_file(Path(comfy.output) / entry["subfolder"] / entry["filename"])["latent_tensor"]
