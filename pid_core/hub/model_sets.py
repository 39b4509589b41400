"""Which files belong together: a PiD checkpoint, the VAE it was made for, and the text encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..printable import quoted
from .catalogue import HubFile, get_file

# The same weights in two precisions; the first is what PiD was trained with.
TEXT_ENCODERS = ("gemma_2_2b_it_elm_bf16.safetensors", "gemma_2_2b_it_elm_fp8_scaled.safetensors")


@dataclass(frozen=True)
class ModelSet:
    """family: of the latents. checkpoint, vae: names of files, None for the bundled model, which needs neither."""

    name: str
    family: str
    checkpoint: str | None = None
    vae: str | None = None

    @property
    def latent_noise(self) -> str:
        """Noise of a picture is in the bundled model's latents as it is; what a VAE makes of it is another matter."""
        return "scale" if self.checkpoint is None else "add"

    def files(self, is_here: Callable[[HubFile], bool]) -> list[HubFile]:
        """Checkpoint, VAE and text encoder, in this order; the encoder in the precision that is here."""
        if self.checkpoint is None:
            return []
        encoders = [get_file(name) for name in TEXT_ENCODERS]
        encoder = next((file for file in encoders if is_here(file)), encoders[0])
        return [get_file(self.checkpoint), get_file(self.vae), encoder]


_ALL = (
    ModelSet("bundled", "rgb"),
    ModelSet("FLUX v1.5", "flux", "pid_1.5_flux1_1024_to_4096_4step_bf16.safetensors", "ae.safetensors"),
    ModelSet("FLUX.2 v1.5", "flux2", "pid_1.5_flux2_1024_to_4096_4step_bf16.safetensors", "flux2-vae.safetensors"),
    ModelSet(
        "Qwen-Image v1.5",
        "qwenimage",
        "pid_1.5_qwenimage_1024_to_4096_4step_bf16.safetensors",
        "qwen_image_vae.safetensors",
    ),
    ModelSet("SD3", "sd3", "pid_sd3_1024_to_4096_4step_bf16.safetensors", "sd3_vae.safetensors"),
    ModelSet("SDXL", "sdxl", "pid_sdxl_1024_to_4096_4step_bf16.safetensors", "sdxl_vae.safetensors"),
)
MODEL_SETS: dict[str, ModelSet] = {one.name: one for one in _ALL}
BUNDLED_SET = _ALL[0]


def get_set(name: str) -> ModelSet:
    """The set of that name. Raises ValueError naming the known ones."""
    if name not in MODEL_SETS:
        raise ValueError(f"model_set is {quoted(name)}; choose one of {', '.join(MODEL_SETS)}")
    return MODEL_SETS[name]
