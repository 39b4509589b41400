"""Which files belong together: a PiD checkpoint, the VAE it was made for, and the text encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..latents.families import families
from ..printable import quoted
from .catalogue import FILES, HubFile, get_file

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
        if self.checkpoint is None or self.vae is None:
            return []
        encoders = [get_file(name) for name in TEXT_ENCODERS]
        encoder = next((file for file in encoders if is_here(file)), encoders[0])
        return [get_file(self.checkpoint), get_file(self.vae), encoder]


BUNDLED_SET = ModelSet("bundled", "rgb")


def model_sets() -> dict[str, ModelSet]:
    """Name -> set: the bundled model, then every family that the hub has a VAE and a checkpoint for, newest first.

    Of a family's checkpoints it is the newest one of four steps for up to 4K, in bfloat16.
    """
    found = []
    for row in families():
        versions = [file for file in FILES if file.family == row.name and _is_distilled_4k(file)]
        vae = next((file.name for file in FILES if file.folder == "vae" and file.family == row.name), None)
        if versions and vae:
            file = max(versions, key=_age)
            name = row.shown if file.version == "v1" else f"{row.shown} {file.version}"
            found.append((file, ModelSet(name, row.name, file.name, vae)))
    found.sort(key=lambda pair: _age(pair[0]), reverse=True)
    return {one.name: one for one in [BUNDLED_SET, *(one for _, one in found)]}


def _is_distilled_4k(file: HubFile) -> bool:
    return file.listed and file.precision == "bf16" and file.steps == 4 and file.resolution == "2K to 4K"


def _age(file: HubFile) -> float:
    return float((file.version or "v0").removeprefix("v"))


def get_set(name: str) -> ModelSet:
    """The set of that name. Raises ValueError naming the known ones."""
    sets = model_sets()
    if name not in sets:
        raise ValueError(f"model_set is {quoted(name)}; choose one of {', '.join(sets)}")
    return sets[name]
