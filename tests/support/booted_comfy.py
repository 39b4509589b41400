"""Boots the real ComfyUI for tests, with a models folder of its own for tiny checkpoints."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

import comfy_env
from comfy_server import ComfyServer, Finished
from support.hub_server import HubServer

PACKS = Path(__file__).parent / "packs"  # test doubles inside ComfyUI
MODEL_FOLDERS = ("diffusion_models", "text_encoders", "vae", "clip_vision", "loras", "checkpoints")


class TestServer(ComfyServer):
    """models: folder whose subfolders (MODEL_FOLDERS) ComfyUI lists and writes to; put a file there at any time.

    hub: the model hub to this server (hub_server.py), so that no test reaches the real one.
    """

    __test__ = False

    def __init__(self, folder: Path):
        comfyui, pack = comfy_env.find_comfyui()
        self.models = folder / "models"
        for name in MODEL_FOLDERS:
            (self.models / name).mkdir(parents=True)
        config = folder / "extra_model_paths.yaml"
        # JSON is YAML, and needs no package to write.
        folders = {name: name for name in MODEL_FOLDERS} | {"custom_nodes": str(PACKS), "is_default": True}
        config.write_text(json.dumps({"pidkit_tests": {"base_path": str(self.models), **folders}}), encoding="utf-8")
        arguments = ("--extra-model-paths-config", str(config))
        packs = tuple(entry.name for entry in PACKS.iterdir())
        self.hub = HubServer()
        env = {"HF_ENDPOINT": self.hub.endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}
        super().__init__(comfyui, comfy_env.python(), folder, pack=pack, more_packs=packs, arguments=arguments, env=env)

    def start(self, timeout: float = 900.0) -> None:
        self.hub.__enter__()
        super().start(timeout)

    def stop(self) -> None:
        super().stop()
        self.hub.__exit__()

    def upload(self, image: np.ndarray | Image.Image, name: str | None = None) -> str:
        """Puts an image ([H, W, 3] uint8, or PIL) into the input folder as PNG; returns its name there."""
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        file = io.BytesIO()
        picture.save(file, "PNG")
        return self.upload_image(file.getvalue(), name)

    def network_calls(self) -> int:
        """How often PiD's network has run in this server."""
        return self.get("/pidkit_tests/network_calls")["calls"]

    def image_bytes(self, height: int, width: int) -> int:
        """Memory that images of this size take in this server, whoever holds them."""
        return self.get("/pidkit_tests/image_bytes", height=str(height), width=str(width))["bytes"]

    def images(self, finished: Finished, node_id: str | None = None) -> list[np.ndarray]:
        """The images of a run as [H, W, 3] uint8, fetched through /view."""
        files = self.image_files(finished, node_id)
        return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
