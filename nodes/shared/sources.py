"""The picture that a result was made from, however it is connected."""

from __future__ import annotations

from torch import Tensor

from ...pid_core.latents.families import families_with
from ...pid_core.latents.rgb import from_rgb_latent, to_image
from ...pid_core.model.guard import all_finite
from ...pid_core.printable import printable
from ...pid_core.windows.run import is_out_of_memory
from ..comfy.picture_size import picture_size
from .inputs import Framed

RGB = "rgb"


def source_of(source: Tensor | None, framing: Framed | None, latent: dict | None, vae) -> Tensor:
    """[B, h, w, 3 or 4] in [0, 1]: the first that is connected. Raises ValueError in one line where none is."""
    if source is not None:
        return source
    if framing is not None:
        return framing.source
    if latent is None:
        raise ValueError(
            "there is nothing to compare with: connect the picture that the image was made from to source, or framing, "
            "or latent with vae"
        )
    samples = latent["samples"]
    if _is_rgb(samples):
        size, _ = picture_size(latent)
        pixels = from_rgb_latent(samples)
        return to_image(pixels if size is None else pixels[..., : size.height, : size.width])
    if vae is None:
        raise ValueError(
            f"latent has {samples.shape[1]} channels and needs its VAE to be compared with: connect vae, or the "
            "picture to source"
        )
    try:
        decoded = vae.decode(samples)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"vae cannot decode latent, of {samples.shape[1]} channels: connect the VAE that made it, or the picture "
            f"to source ({printable(error, 120)})"
        ) from error
    if decoded.ndim == 5:  # VAEs for video: [B, frames, H, W, 3]
        decoded = decoded.flatten(0, 1)
    if not all_finite(decoded):
        raise ValueError("the VAE's decode of latent holds NaN or infinite values: connect the picture to source")
    return decoded


def _is_rgb(samples: Tensor) -> bool:
    return samples.ndim == 4 and [row.name for row in families_with(samples.shape[1])] == [RGB]
