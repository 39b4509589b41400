"""PiD Sigma Tuner: a degrade_sigma for every picture of a batch, set by eye."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..pid_core.images.paint import LONGEST, paint_masks, parse_paint
from ..pid_core.images.per_picture import ID_LENGTH, match_values, parse_ids, parse_sigmas, picture_id
from ..pid_core.images.quality import Quality, estimate_quality, suggest_sigma
from ..pid_core.images.strengths import STRENGTHS
from ..pid_core.latents.lq_input import TRAINED_SIGMA
from ..pid_core.latents.sigma_map import SigmaMap
from .comfy.node_text import show_on_node
from .comfy.pid_models import config_of
from .shared.inputs import SigmaList
from .shared.pictures import picture_file, save_picture

THUMBNAIL, LARGE = 192, 4096  # longest sides in pixels
BLURRED = 0.2  # what blur alone would ask for, from which on the node speaks of it


class PiDKitSigmaTuner(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        # what the front end looks for in a workflow that is opened again
        sizes = {"thumbnail": THUMBNAIL, "large": LARGE}
        files = {kind: picture_file(_file_name("{id}", size)) for kind, size in sizes.items()}
        return io.Schema(
            node_id="PiDKitSigmaTuner",
            display_name="PiD Sigma Tuner",
            category="PiD",
            description="Shows every picture of a batch with a slider for its degrade_sigma: 0 keeps to the picture, "
            f"higher values trust it less and invent more. Trained up to {TRAINED_SIGMA:g}. The mark on a slider is a "
            "suggestion.",
            search_aliases=["pid", "degrade sigma", "per image", "strength", "restoration"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The pictures before decoding, at their own size: a batch, or a list of any sizes.",
                ),
                io.Float.Input(
                    "default_sigma",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="degrade_sigma of a picture that has no value yet, 0 to 1, 0 by default. Raise it for a "
                    "batch of damaged pictures.",
                ),
                io.String.Input(
                    "sigmas",
                    default="",
                    socketless=True,
                    extra_dict={"presets": STRENGTHS, "trained": TRAINED_SIGMA},  # of the buttons and the sliders
                    tooltip="One degrade_sigma per picture, 0 to 1, with commas between. The sliders write it. Empty: "
                    "the default for all.",
                ),
                io.String.Input(
                    "pictures",
                    default="",
                    socketless=True,
                    extra_dict={"id_length": ID_LENGTH, "files": files},
                    tooltip="Which picture each value belongs to. The node writes it, so that values stay with their "
                    "pictures. Empty: values go by position.",
                ),
                io.String.Input(
                    "painted",
                    default="",
                    socketless=True,
                    optional=True,
                    extra_dict={"longest": LONGEST},
                    tooltip="What is painted on the pictures: degrade_sigma for a part of one. The node's brush writes "
                    "it. Empty: nothing.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The latent made from the pictures. Its count is checked, and a list of latents gets a "
                    "list of values.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The PiD model that decodes the pictures. With one that can draw what a blur took, such "
                    "as NVIDIA's, blur counts in the suggestion. Left open, or with pid_nano, only noise does.",
                ),
            ],
            outputs=[
                SigmaList.Output(
                    display_name="sigma_list",
                    is_output_list=True,
                    tooltip="One degrade_sigma per picture, and what is painted on it, for sigma_list of PiD Decode or "
                    "PiD Latent Conditioning.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, sigmas: list | tuple = ("",), default_sigma: list | tuple = (0.0,), painted: list | tuple = ("",)
    ) -> bool | str:
        # None: it comes by a link
        try:
            parse_sigmas("" if sigmas[0] is None else sigmas[0])
            _default(0.0 if default_sigma[0] is None else default_sigma[0])
            parse_paint(painted[0] or "")
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        image: list,
        default_sigma: list[float],
        sigmas: list,
        pictures: list,
        painted: list | tuple = ("",),
        latent: list[dict] | None = None,
        model: list | None = None,
    ) -> io.NodeOutput:
        counts = _counts(image, latent)
        single = [picture for batch in image for picture in batch]
        ids = [picture_id(picture) for picture in single]
        known = parse_ids(pictures[0])
        qualities = [estimate_quality(picture) for picture in single]
        invents = None if model is None else config_of(model[0].model).invents
        default = _default(default_sigma[0])
        values = match_values(parse_sigmas(sigmas[0]), known, ids, default)
        tiles = [
            {
                "id": name,
                "sigma": value,
                "suggestion": suggest_sigma(quality, invents=bool(invents)),
                "thumbnail": save_picture(picture, _file_name(name, THUMBNAIL), THUMBNAIL),
                "large": save_picture(picture, _file_name(name, LARGE), LARGE, exact=True),
            }
            for name, value, picture, quality in zip(ids, values, single, qualities, strict=True)
        ]
        paint = parse_paint(painted[0])
        count = sum(name in paint for name in ids)
        painted_line = f"{count} painted on" if count else ""
        show_on_node(cls, _changes(known, ids, default), _blurred(qualities, invents), painted_line)
        parts = [part.tolist() for part in torch.arange(len(values)).split(counts)]
        return io.NodeOutput(
            [_level([values[i] for i in part], [paint.get(ids[i]) for i in part]) for part in parts],
            ui={"pidkit_pictures": tiles},
        )


def _level(values: list[float], grids: list[Tensor | None]) -> list[float] | SigmaMap:
    """degrade_sigma of the pictures of one batch, a map where something is painted on one."""
    masks = paint_masks(grids)
    return SigmaMap(tuple(values), masks, sets_base=True) if masks else values


def _file_name(picture: str, size: int) -> str:
    return f"{picture}_{size}"


def _default(value: float) -> float:
    """Raises ValueError where it is no number from 0 to 1: NaN would make a history that no browser reads."""
    return parse_sigmas([value], "default_sigma")[0]


def _counts(image: list, latent: list[dict] | None) -> list[int]:
    """Pictures per element of what is decoded. Raises ValueError where image and latent differ in number."""
    of_images = [batch.shape[0] for batch in image]
    if latent is None:
        return of_images
    of_latents = [one["samples"].shape[0] for one in latent]
    if sum(of_images) != sum(of_latents):
        raise ValueError(
            f"image holds {sum(of_images)} pictures, latent {sum(of_latents)}: "
            "give the latent that was made from these pictures, or leave latent open"
        )
    return of_latents


def _changes(known: list[str], ids: list[str], default: float) -> str:
    """What became of the values when the pictures changed."""
    text = f"{len(ids)} pictures" if len(ids) != 1 else "1 picture"
    new, gone = len(set(ids) - set(known)), len(set(known) - set(ids))
    if known and (new or gone):
        text += f": {new} new at {default:g}, {gone} gone, the others keep their value"
    return text


def _blurred(qualities: list[Quality], invents: bool | None) -> str:
    """Says where blur was seen and nothing is suggested for it. invents: None where the model is not known."""
    count = sum(suggest_sigma(Quality(0.0, quality.blur), invents=True) >= BLURRED for quality in qualities)
    if invents or not count:
        return ""
    if invents is None:
        return f"{count} blurred: with the model connected, blur counts where the model can invent"
    return f"{count} blurred: this model cannot invent what a blur took, so nothing is suggested for it"
