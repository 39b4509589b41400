"""The encoders' files: which encoder one holds, its weights by one set of names, and DINOv2's statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..errors import in_words, said_of
from ..printable import printable
from ..tensor_files import find_not_finite, read_outline, read_tensors
from .arithmetic import Statistics
from .facts import PATCH, RAE, RAEFacts

Shapes = Mapping[str, Sequence[int]]
FOLDER = "clip_vision"  # ComfyUI's name for the models folder they lie in
REGISTERS = "embeddings.register_tokens"
WHOLE = "model.safetensors"  # in a folder as Hugging Face has it
STATISTICS = ("rae_dinov2_stat.pt", "stat.pt")  # names that are looked for beside an encoder
_WORDS = "text_model.embeddings.token_embedding.weight"
_OLD_WORDS = 32_000  # of SigLIP, whose vision tower has SigLIP 2's shapes
_PART = re.compile(r"(.*)-\d{5}-of-(\d{5})(\.safetensors)")
_SCALES = ("scaled_fp8", ".scale_weight", ".weight_scale")  # ends of names beside weights that were quantised
_PREFIXES = ("dinov2_with_registers.", "vision_model.")
# Two ways of transformers to name one thing; what the files say -> what is used here.
_ALIKE = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
}


class EncoderFile(NamedTuple):
    """An encoder on the disk, known by its tensors' shapes. paths: its file, or all parts of it."""

    paths: tuple[Path, ...]
    facts: RAEFacts
    shapes: dict[str, tuple[int, ...]]

    @property
    def name(self) -> str:
        """For messages."""
        return printable(self.paths[0].name)


def plain_name(name: str) -> str:
    """A tensor's name without what stands before the encoder's part, and as newer versions of transformers have it."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    for old, new in _ALIKE.items():
        name = name.replace(old, new)
    return name


def find_parts(path: str | Path) -> tuple[Path, ...]:
    """The files behind a name: itself, the one in a folder as Hugging Face has it, or all parts of a divided one.

    Raises FileNotFoundError in one line where one is not there.
    """
    path = Path(path)
    if path.is_dir():
        parts = sorted(path.glob("model-*-of-*.safetensors"))
        if not (path / WHOLE).is_file() and not parts:
            raise FileNotFoundError(f"the folder {printable(path.name)} holds no {WHOLE}")
        path = path / WHOLE if (path / WHOLE).is_file() else parts[0]
    divided = _PART.fullmatch(path.name)
    if divided is None:
        return (path,)
    start, count, ending = divided.groups()
    parts = [path.with_name(f"{start}-{number:05}-of-{count}{ending}") for number in range(1, int(count) + 1)]
    lacking = next((part for part in parts if not part.is_file()), None)
    if lacking is not None:
        raise FileNotFoundError(f"{printable(path.name)} is one of {int(count)} parts, and {lacking.name} is not there")
    return tuple(parts)


def examine_encoder(path: str | Path, family: str | None = None) -> EncoderFile:
    """Which encoder this is, by the names and shapes in its header. family: the one it must be of.

    Raises FileNotFoundError, or ValueError in one line, with the numbers, for what is neither encoder.
    """
    parts = find_parts(path)
    shapes: dict[str, tuple[int, ...]] = {}
    for part in parts:
        tensors, _ = read_outline(part, "encoder")
        shapes |= {plain_name(name): tuple(value.shape) for name, value in tensors.items() if isinstance(value, Tensor)}
    facts = next((one for one in RAE.values() if one.patches in shapes), None)
    try:
        if facts is None:
            raise ValueError(f"it is no encoder that PiD has latents of: {in_words(one.shown for one in RAE.values())}")
        _check(shapes, facts)
        if family is not None and family != facts.family:
            raise ValueError(f"it is {facts.shown}, and {family} latents are made by {RAE[family].shown}")
    except ValueError as error:
        raise said_of(printable(parts[0].name), error) from None
    return EncoderFile(parts, facts, shapes)


def _check(shapes: Shapes, facts: RAEFacts) -> None:
    width = facts.row.channels
    wanted = {facts.patches: (width, 3, PATCH, PATCH), facts.positions: (facts.places, width)}
    if facts.family == "dinov2":
        if REGISTERS not in shapes:
            raise ValueError(f"it has no register tokens, and {facts.shown} is needed")
        wanted |= {facts.positions: (1, facts.places, width), REGISTERS: (1, facts.special - 1, width)}
    for name, shape in wanted.items():
        found = list(shapes.get(name, ()))
        if found != list(shape):
            raise ValueError(f"its {name} is {found}, that of {facts.shown} is {list(shape)}")
    if any(name.endswith(_SCALES) for name in shapes):
        raise ValueError("it is quantised, with scales that are not read here: use the encoder in bfloat16 or float32")
    layers = "encoder.layer." if facts.family == "dinov2" else "encoder.layers."
    if not any(name.startswith(f"{layers}0.") for name in shapes):
        raise ValueError(f"it holds no {layers}0, so it is damaged or another file")
    if shapes.get(_WORDS, (0,))[0] == _OLD_WORDS:
        raise ValueError(f"it is SigLIP, the first one, with {_OLD_WORDS} words, and {facts.shown} is needed")


def read_encoder(file: EncoderFile) -> dict[str, Tensor]:
    """The encoder's tensors by their plain names, mapped. Raises ValueError in one line."""
    weights: dict[str, Tensor] = {}
    for part in file.paths:
        tensors, _ = read_tensors(part, "encoder")
        weights |= {plain_name(name): value for name, value in tensors.items()}
    return weights


def statistics_beside(path: str | Path) -> Path | None:
    """A statistics file in an encoder's folder, by its name; None where there is none."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    return next((folder / name for name in STATISTICS if (folder / name).is_file()), None)


def read_statistics(path: str | Path, facts: RAEFacts) -> Statistics:
    """`mean` and `var`, each [C, h, w], of a file of PyTorch's or a safetensors file, float32.

    Raises FileNotFoundError, or ValueError in one line, with the numbers, for what holds no such statistics.
    """
    tensors, _ = read_tensors(path, "statistics file", mapped=False)
    shape = (facts.row.channels, facts.cells, facts.cells)
    try:
        mean, var = (_values(tensors, name, shape) for name in Statistics._fields)
        if bool((var < 0).any()):
            raise ValueError("its var holds values below 0")
    except ValueError as error:
        raise said_of(printable(Path(path).name), error) from None
    return Statistics(mean, var)


def _values(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    value = tensors.get(name)
    if not isinstance(value, Tensor):
        raise ValueError(f"it holds no tensor {name}, so it is no statistics file")
    if value.ndim == 4 and value.shape[0] == 1:
        value = value[0]
    if value.shape != shape or not value.is_floating_point():
        raise ValueError(f"its {name} is {list(value.shape)}, numbers of shape {list(shape)} are needed")
    if find_not_finite({name: value}) is not None:
        raise ValueError(f"its {name} holds NaN or infinite values")
    return value.float().clone()
