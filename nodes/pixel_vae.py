"""Pixel-Space VAE: pixels stay pixels, in float32."""

from __future__ import annotations

import comfy.sd
import torch
from comfy_api.latest import io
from torch import Tensor

from ..pid_core.errors import PiDError
from ..pid_core.latents.rgb import to_image, to_pixels
from .comfy.remedies import explained


class PixelVAE(comfy.sd.VAE):
    """A VAE whose latent is the image itself, in [-1, 1]. Nothing moves to the GPU, nothing is tiled."""

    def __init__(self):
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)

    def decode(self, samples_in: Tensor, vae_options=None) -> Tensor:
        try:
            return to_image(samples_in.to(self.output_device))
        except PiDError as error:  # ComfyUI's own VAE Decode calls this
            raise explained(error) from error

    def decode_tiled(self, samples: Tensor, *args, **kwargs) -> Tensor:
        return self.decode(samples)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        return to_pixels(pixel_samples.to(self.output_device))

    def encode_tiled(self, pixel_samples: Tensor, *args, **kwargs) -> Tensor:
        return self.encode(pixel_samples)


class PiDKitPixelVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiDKitPixelVAE",
            display_name="Pixel-Space VAE",
            category="PiD/sampling",
            description="Turns PiD's pixels into an image and back, exactly, in float32. For VAE Decode, "
            "VAE Encode and their tiled forms, at any size.",
            search_aliases=["pixel space", "identity vae", "pid vae"],
            inputs=[],
            outputs=[
                io.Vae.Output(display_name="vae", tooltip="For VAE Decode after the sampler that ran PiD. No file.")
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(PixelVAE())
