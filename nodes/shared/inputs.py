"""Inputs that several nodes have, and the types that only this pack's nodes pass on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ...pid_core.errors import in_words
from ...pid_core.images.colour import COLOUR_HOLDS
from ...pid_core.images.framing import Framing
from ...pid_core.latents.families import LatentFamily, families, families_with
from ...pid_core.latents.lq_input import LATENT_NOISE, TRAINED_SIGMA
from ...pid_core.windows.plan import OVERLAP

SigmaList = io.Custom("PIDKIT_SIGMA_LIST")  # a list of numbers, one per image of the batch, or a SigmaMap
FramedPicture = io.Custom("PIDKIT_FRAMING")
CheckFigures = io.Custom("PIDKIT_CHECK")  # {"images": [figures by name, of each image of the batch]}
ABSENT = object()  # default of a link in validate_inputs: not connected. A connected one is None there


class Framed(NamedTuple):
    """A picture and how it was framed: source [B, H, W, C] as given, image [B, h, w, 3] as encoded."""

    framing: Framing
    source: Tensor
    image: Tensor


def latent_formats() -> list[str]:
    return ["auto", *(row.name for row in families())]


def whose(rows: Iterable[LatentFamily]) -> str:
    """For tooltips: "sdxl: SDXL, Kolors. dinov2, siglip: RAE latents, normalised."."""
    groups = itertools.groupby(rows, key=lambda row: row.about)
    return " ".join(f"{', '.join(row.name for row in group)}: {about}." for about, group in groups)


def undetectable() -> tuple[str, str]:
    """Counts of channels that several families share, and those families, in words."""
    rows = [row for row in families() if len(families_with(row.channels)) > 1]
    return " or ".join(dict.fromkeys(str(row.channels) for row in rows)), in_words(row.name for row in rows)


def latent_format_input(**options) -> io.Combo.Input:
    return io.Combo.Input(
        "latent_format",
        options=latent_formats(),
        default="auto",
        tooltip="Whose VAE made the latent. auto: what the model says, else what the channels tell. "
        f"{whose(families())}",
        **options,
    )


def sigma_input() -> io.Float.Input:
    return io.Float.Input(
        "degrade_sigma",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="Noise level of the latent, 0 to 1. 0: a clean latent, stay close to it. "
        f"Higher: trust it less and invent more. Trained up to {TRAINED_SIGMA:g}.",
    )


def sigma_list_input() -> io.MultiType.Input:
    return io.MultiType.Input(
        "sigma_list",
        types=[SigmaList, io.Float],
        optional=True,
        tooltip="degrade_sigma for every image of the batch on its own, from PiD Sigma Tuner (a list with one number "
        "per image), or for every place of the picture, from PiD Sigma Map. Takes the place of degrade_sigma.",
    )


def text_inputs(shows: str) -> list[io.Input]:
    """positive, clip and text, of which one way is taken. shows: what the text is of, as a sentence."""
    return [
        io.Conditioning.Input(
            "positive",
            optional=True,
            tooltip="The text: CLIP Text Encode with PiD's encoder (CLIPLoader, type pixeldit). Not needed with clip, "
            "or with a model that brings its own caption, such as pid_nano.",
        ),
        io.Clip.Input(
            "clip",
            optional=True,
            lazy=True,
            tooltip="PiD's text encoder (CLIPLoader, type pixeldit), to encode the text below here.",
        ),
        io.String.Input(
            "text",
            default="",
            multiline=True,
            optional=True,
            tooltip=f"{shows} Used with clip; may stay empty.",
        ),
    ]


def latent_noise_input(**options) -> io.Combo.Input:
    return io.Combo.Input(
        "latent_noise",
        options=list(LATENT_NOISE),
        default="add",
        tooltip="add: noise of level degrade_sigma is added here, as in NVIDIA's code. scale: for a picture that is "
        "noisy itself; nothing is added, its own noise counts. keep: the latent was stopped early and carries noise of "
        "that level.",
        **options,
    )


def colour_hold_input(default: str, **options) -> io.Combo.Input:
    return io.Combo.Input(
        "colour_hold",
        options=list(COLOUR_HOLDS),
        default=default,
        tooltip="Takes colours from the reference and leaves detail alone. mean_deviation: one gain and offset per "
        "channel, for a cast or whitening that is the same everywhere. low_frequencies: everything broad, for "
        "casts that differ from place to place. none: off.",
        **options,
    )


def fidelity_input(**options) -> io.Float.Input:
    return io.Float.Input(
        "fidelity",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="How much of the fine detail comes from the reference, enlarged, 0 to 1. 0: all detail is PiD's. "
        "0.2 to 0.5 calms plastic or over-drawn texture; 1 leaves none of PiD's detail.",
        **options,
    )


def start_at_input(most: int, picture: str, **options) -> io.Int.Input:
    """picture: where the picture comes from, as a sentence."""
    return io.Int.Input(
        "start_at",
        default=1,
        min=1,
        max=most,
        tooltip="The step to begin with. 1: from pure noise, all steps. 2 and up: from a picture mixed with that "
        f"step's noise; each step left out saves a network call. {picture}",
        **options,
    )


def hold_input(**options) -> io.Float.Input:
    return io.Float.Input(
        "hold",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="Keeps to the reference at every step: what the picture, made four times smaller, differs from it by "
        "is given back, 0 to 1. 1: made smaller again, the result is the reference. Finer detail stays PiD's. For a "
        "degrade_sigma above 0 that must not change shapes and colours.",
        **options,
    )


def window_size_input(name: str, tooltip: str, **options) -> io.Int.Input:
    text = f"Largest side of a window in pixels of the output, {tooltip}"
    return io.Int.Input(name, default=2048, min=8, max=16384, step=8, tooltip=text, **options)


def window_overlap_input(name: str, tooltip: str, **options) -> io.Int.Input:
    text = f"Least overlap of neighbouring windows in pixels{tooltip}"
    return io.Int.Input(name, default=OVERLAP, min=0, max=8192, step=8, tooltip=text, **options)


def framing_input(**options) -> io.Custom.Input:
    return FramedPicture.Input("framing", **options)
