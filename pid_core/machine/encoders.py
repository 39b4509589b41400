"""VAEs and text encoders, known by the names and shapes in their files: nothing of them is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..errors import in_words
from ..hub.catalogue import FILES, known_file
from ..hub.model_sets import TEXT_ENCODERS
from ..latents.families import LatentFamily, VAEFile, families, get_family
from ..printable import printable
from ..rae.facts import is_rae
from ..rae.files import examine_encoder
from ..tensor_files import read_outline

Shapes = Mapping[str, Sequence[int]]
_EMBEDDING, _GEMMA_2, _GEMMA_3 = (
    "model.embed_tokens.weight",
    "model.layers.0.post_feedforward_layernorm.weight",
    "model.layers.0.self_attn.q_norm.weight",
)
TOKENIZER = "spiece_model"


def vae_families(shapes: Shapes) -> list[LatentFamily]:
    """Whose VAE a file may be, by its tensors; empty for what is no VAE of a family that PiD decodes."""
    return [row for row in families() if row.vae and _vae_in(shapes, row.vae.tensor) == row.vae._replace(alike="")]


def gemma_2_width(shapes: Shapes) -> int | None:
    """The width of a Gemma-2 text encoder's states; None for any other file."""
    if _GEMMA_2 not in shapes or _GEMMA_3 in shapes or not shapes.get(_EMBEDDING):
        return None
    return shapes[_EMBEDDING][-1]


def check_vae(path: Path, family: str) -> None:
    """Raise ValueError in one line, with the numbers, for a file that is not the VAE, or encoder, of this family."""
    row, name = get_family(family), printable(Path(path).name)
    if is_rae(row.name):
        examine_encoder(path, row.name)
        return
    if row.vae is None:
        raise ValueError(f"latents of {row.name} are made by no VAE that is known here: leave --vae out")
    wanted = next((f", {file.name}" for file in FILES if file.folder == "vae" and file.family == row.name), "")
    wanted = f"give the VAE of {row.name}{wanted}"
    shapes = _as_made(_shapes(path, "VAE"))
    tensors = dict.fromkeys(one.vae.tensor for one in families() if one.vae)
    vae = next(filter(None, (_vae_in(shapes, tensor) for tensor in tensors)), None)
    if vae is None:
        raise ValueError(f"{name} is no VAE of a family that PiD decodes: {wanted}")
    found = vae_families(shapes)
    known = known_file(name)
    if known is not None and known.family in [one.name for one in found]:  # two families' VAEs may look the same
        found = [get_family(known.family)]
    if row not in found:
        what = in_words(one.name for one in found) or "no family that PiD decodes"
        raise ValueError(
            f"{name} is the VAE of {what} ({_described(vae)}), and the checkpoint takes latents of {row.name} "
            f"({_described(row.vae)}): {wanted}"
        )
    if vae.tensor.replace("decoder", "encoder") not in shapes:
        raise ValueError(f"{name} holds the half of a VAE that decodes, and no encoder: {wanted}")


def check_text_encoder(path: Path, width: int) -> None:
    """Raise ValueError in one line for a file that does not make captions of this width for PiD."""
    name = printable(Path(path).name)
    wanted = f"give {in_words(TEXT_ENCODERS)}"
    shapes = _shapes(path, "text encoder")
    found = gemma_2_width(shapes)
    if found is None:
        raise ValueError(f"{name} is not the text encoder that PiD was trained with, Gemma-2-2b: {wanted}")
    if TOKENIZER not in shapes:
        raise ValueError(f"{name} is Gemma-2 without its tokenizer: {wanted}, as Comfy-Org/PixelDiT has it")
    if found != width:
        raise ValueError(f"{name} makes captions {found} wide, and the checkpoint takes {width}: leave --clip out")


def _as_made(shapes: Shapes) -> Shapes:
    """With the names of whoever made the VAE: diffusers has one name for the first layer, flat or of frames."""
    frames = len(shapes.get("decoder.conv_in.weight", ())) == 5
    return {name.replace(".conv_in.", ".conv1.") if frames else name: shape for name, shape in shapes.items()}


def _vae_in(shapes: Shapes, tensor: str) -> VAEFile | None:
    shape = tuple(shapes.get(tensor, ()))
    return VAEFile(tensor, shape[1], len(shape)) if len(shape) > 1 else None


def _described(vae: VAEFile) -> str:
    return f"{vae.tensor} of {vae.channels} channels" + ("" if vae.ndim == 4 else f", {vae.ndim} dimensions")


def _shapes(path: Path, what: str) -> Shapes:
    tensors, _ = read_outline(path, what)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
