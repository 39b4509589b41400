"""PiD RAE Encode: a picture as the latent of an RAE family, by DINOv2 or SigLIP 2."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import folder_paths
from comfy_api.latest import io
from torch import Tensor

from ..pid_core.hub.catalogue import HubFile, get_file
from ..pid_core.printable import printable
from ..pid_core.rae.encoder import load_encoder
from ..pid_core.rae.facts import RAEFacts
from ..pid_core.rae.files import FOLDER, STATISTICS, examine_encoder, statistics_beside
from ..pid_core.tensor_files import Stamp
from .comfy.latent_tags import FAMILY, tagged
from .comfy.node_text import show_on_node
from .comfy.rae import DTYPES, dtype_of, encode_pictures
from .shared.known_files import (
    MARK,
    fetch_options,
    generation,
    licence_input,
    marked_file,
    not_accepted,
    not_listed,
    obtain,
)

AUTO = "auto"
PICKLES = (".pt", ".pth")


class Files(NamedTuple):
    """What an encoding is made with. statistics: None where it needs none."""

    encoder: Path
    statistics: Path | None


class PiDKitRAEEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        here, known = folder_paths.get_filename_list(FOLDER), fetch_options(FOLDER)
        return io.Schema(
            node_id="PiDKitRAEEncode",
            display_name="PiD RAE Encode",
            category="PiD/picture",
            description="Encodes a picture as the latent of an RAE family: dinov2 by DINOv2, siglip by SigLIP 2. "
            "Both see one fixed square: PiD Prepare Image before it keeps the picture's aspect.",
            search_aliases=["rae", "dinov2", "siglip", "scale-rae", "vae encode"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="From PiD Prepare Image, a square. Any other picture is squeezed to one, its aspect lost.",
                ),
                io.Combo.Input(
                    "encoder",
                    options=[*_not(PICKLES, known), *_not(PICKLES, here)],
                    tooltip=f"The encoder's file in models/{FOLDER}, which tells the family. Names after 'fetch:' are "
                    "fetched the first time they are used (0.3 GB for DINOv2, 4.5 GB for SigLIP 2).",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Precision of the encoder's weights. auto: bfloat16 where the device has it, else float32.",
                ),
                io.Combo.Input(
                    "statistics",
                    options=[AUTO, *(name for name in known if name not in _not(PICKLES, known)), *here],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="The file that normalises dinov2 latents; siglip needs none. auto: "
                    f"{STATISTICS[0]}, fetched where it is not there.",
                ),
                licence_input(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip="768 channels at 32 x 32 of dinov2, 1152 at 16 x 16 of siglip. For PiD Decode or PiD "
                    "Latent Conditioning.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, image: Tensor, encoder: str, dtype: str = AUTO, statistics: str = AUTO, accept_licence: bool = False
    ) -> io.NodeOutput:
        files = _files(cls, encoder, statistics, accept_licence)
        precision = dtype_of(dtype)
        model = load_encoder(files.encoder, files.statistics, dtype=precision)
        latent = encode_pictures(model, image)
        shown = str(precision).removeprefix("torch.")
        show_on_node(cls, f"{model.facts.shown}, {shown}", *_squeezed(image, model.facts))
        return io.NodeOutput(tagged({"samples": latent}, **{FAMILY: model.facts.family}))

    @classmethod
    def validate_inputs(
        cls, encoder: str | None = None, statistics: str | None = AUTO, accept_licence: bool | None = False
    ) -> bool | str:
        for name, choice in (("encoder", encoder), ("statistics", statistics)):
            problem = None if choice is None else _problem(cls, name, choice)
            if problem is not None:
                return problem
        known = None if encoder is None else marked_file(encoder)
        wanted = [] if known is None else [known, *_statistics_to_fetch(known.family, statistics)]
        return not_accepted(wanted, accept_licence) or True

    @classmethod
    def fingerprint_inputs(cls, encoder: str | None = None, statistics: str | None = AUTO, **_) -> tuple:
        # a file that was replaced is loaded again; a name that comes by a link is not known yet
        return tuple(_stamp(choice) for choice in (encoder, _DEFAULT if statistics == AUTO else statistics))


_DEFAULT = MARK + STATISTICS[0]


def _not(endings: tuple[str, ...], names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(endings)]


def _stamp(choice: str | None) -> Stamp | int | None:
    file = None if choice is None else marked_file(choice)
    if file is not None:
        return generation(file)
    path = None if choice is None else folder_paths.get_full_path(FOLDER, choice)
    return None if path is None else Stamp.of(path)


def _problem(node: type[io.ComfyNode], name: str, choice: str) -> str | None:
    if choice.startswith(MARK) or choice == AUTO:
        return not_listed(node, name, choice)
    if folder_paths.get_full_path(FOLDER, choice) is not None:
        return None
    return f"no such file: {printable(choice)}; put it into models/{FOLDER} and press R, or choose another {name}"


def _statistics_to_fetch(family: str | None, choice: str | None) -> list[HubFile]:
    """The known file, where this family needs it and the choice is not another."""
    if family != "dinov2" or choice is None:
        return []
    file = get_file(STATISTICS[0]) if choice == AUTO else marked_file(choice)
    return [] if file is None else [file]


def _files(node: type[io.ComfyNode], encoder: str, statistics: str, accept: bool) -> Files:
    """Everything that is needed and not here is fetched, after one question for all."""
    known = marked_file(encoder)
    path = None if known is not None else _path(encoder)
    family = known.family if known is not None else examine_encoder(path or encoder).facts.family
    beside = None if path is None or statistics != AUTO else statistics_beside(path)
    wanted = [*([known] if known else []), *([] if beside else _statistics_to_fetch(family, statistics))]
    names = obtain(node, wanted, accept)
    if known is not None:
        path = _path(names.pop(0))
    assert path is not None
    if family != "dinov2":
        return Files(path, None)
    return Files(path, beside or _path(names[0] if names else statistics))


def _path(name: str) -> Path:
    """Raises FileNotFoundError where the file is gone."""
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def _squeezed(image: Tensor, facts: RAEFacts) -> list[str]:
    """A line where the picture is not the square that the family's checkpoint was trained with."""
    height, width, side = *image.shape[1:3], facts.row.square
    if height != width:
        return [f"{width} x {height} is squeezed to a square, its aspect lost: put PiD Prepare Image before this"]
    if width != side:
        return [f"{width} x {height}, not the {side} x {side} of {facts.family}: put PiD Prepare Image before this"]
    return []
