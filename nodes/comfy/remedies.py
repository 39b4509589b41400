"""What to do about the core's errors in ComfyUI: the names of nodes and inputs, which the core does not know."""

from __future__ import annotations

from collections.abc import Callable

from ...pid_core import errors
from ...pid_core.errors import PiDError, in_words


def explain(error: Exception) -> str:
    """The line that a user of the nodes reads."""
    for kind, words in REMEDIES.items():
        if isinstance(error, kind):
            place = error.place
            return place + (f"{error.facts}: {words}" if isinstance(words, str) else words(error))
    return str(error)


def explained(error: PiDError) -> ValueError:
    """The same error with its remedy: a ValueError that does not tell how the core sorts its errors."""
    return errors.NonFiniteError(str(error)) if type(error) is errors.NonFiniteError else ValueError(explain(error))


def _wrong_channels(error: errors.WrongChannelsError) -> str:
    return _wrong_choice(error) if error.chosen is not None else _wrong_latent(error)


def _wrong_choice(error: errors.WrongChannelsError) -> str:
    names = in_words(error.families)
    advice = f"set latent_format to {names}" if names else "connect another latent"
    line = f"latent_format is {error.chosen}, but the latent has {_channels(error)}: {advice}"
    return line + _blank(error)


def _wrong_latent(error: errors.WrongChannelsError) -> str:
    takes, made_by = error.takes, in_words(error.families)
    what = f"the latent has {_channels(error)}"
    if error.foreign is not None:
        way = "PiD RGB Latent" if takes == ["rgb"] else f"VAE Encode with the VAE of {in_words(takes) or 'flux'}"
        return f"{what}: turn it into a picture with VAE Decode, then use {way}{_blank(error)}"
    file_for = f"choose a PiD file for {made_by} in PiD Loader"
    if takes == ["rgb"]:
        # the bundled model has no VAE
        needs, advice = "pictures from PiD RGB Latent", "put PiD RGB Latent before it, with the picture"
        if made_by:
            advice = f"{file_for}, or {advice}"
    elif error.families == ["rgb"]:
        needs = in_words(takes)
        advice = "choose pid_nano (bundled) in PiD Loader, or make the latent with VAE Encode"
    else:
        needs = in_words(takes)
        advice = f"connect a latent that the VAE of {needs} made" if takes else "connect a latent made for it"
        if made_by:
            advice += f", or {file_for}"
    return f"{what}; this checkpoint takes {error.needed}, {needs or 'its own'}: {advice}{_blank(error)}"


def _channels(error: errors.WrongChannelsError) -> str:
    return error.channels(rgb="a picture from PiD RGB Latent")


def _blank(error: errors.WrongChannelsError) -> str:
    return ". It is blank, as from an Empty Latent node" if error.blank else ""


def _wrong_family(error: errors.WrongFamilyError) -> str:
    what = (
        f"latent_format {error.chosen} has {error.channels} channels, this checkpoint takes {error.needed}"
        if error.made_for is None
        else f"latent_format is {error.chosen}, but this checkpoint was made for {error.made_for}"
    )
    return f"{what}: set latent_format to auto, or choose a PiD file for {error.chosen} in PiD Loader"


def _carried_family(error: errors.CarriedFamilyError) -> str:
    return (
        f"PiD Latent From Noisy was told that the latent is {error.own}'s, but it is to be decoded as {error.chosen}'s"
        ": choose the same latent_format there, or another file in PiD Loader"
    )


def _carried_noise(error: errors.CarriedNoiseError) -> str:
    if error.latent_noise == "keep":
        return f"{error.facts}: connect degrade_sigma of PiD Early Stop"
    does = "puts more on top, which PiD takes for picture" if error.latent_noise == "add" else "makes it weaker"
    return (
        f"the latent was stopped early and already carries noise of level {error.sigma:.3g}; latent_noise "
        f"{error.latent_noise} {does}: set it to keep"
    )


def _blank_latent(error: errors.BlankLatentError) -> str:
    return f"{error.facts}, as from an Empty Latent node: connect the latent of a sampler or of VAE Encode"


def _wrong_size(error: errors.WrongSizeError) -> str:
    if error.needed is None:
        return error.facts
    height, width = error.found
    return (
        f"the image is {width} x {height}, but the picture from PiD Prepare Image decodes to "
        f"{error.needed[1]} x {error.needed[0]}: connect what PiD made of that picture"
    )


def _broken_caption(error: errors.BrokenCaptionError) -> str:
    return f"{error.facts}; set device to cpu in Load CLIP"


def _wrong_encoder(error: errors.WrongEncoderError) -> str:
    if error.tokens is not None:
        return f"{error.facts}: use Load CLIP with type pixeldit"
    return (
        f"clip is {error.found}, which PiD was not trained with: use Load CLIP with type pixeldit and the file "
        "gemma_2_2b_it_elm_bf16.safetensors (or its fp8 form)"
    )


# By the kind of error, the special before the general: what to add, or how to say all of it.
REMEDIES: dict[type[PiDError], str | Callable[..., str]] = {
    errors.NoImageLatentError: "connect an image latent",
    errors.BrokenLatentError: "the node that made it failed; change its settings or dtype",
    errors.BlankLatentError: _blank_latent,
    errors.WrongChannelsError: _wrong_channels,
    errors.UnclearFamilyError: "set latent_format to the one whose VAE made it",
    errors.WrongFamilyError: _wrong_family,
    errors.CarriedFamilyError: _carried_family,
    errors.CarriedNoiseError: _carried_noise,
    errors.NoStopLevelError: "connect degrade_sigma of PiD Early Stop",
    errors.WrongCaptionError: (
        "encode the text with PiD Caption and Load CLIP (type pixeldit, for NVIDIA's files with Gemma-2-2b)"
    ),
    errors.CheckpointFamilyError: "set family to auto",
    errors.CheckpointScheduleError: "set schedule to auto",
    errors.OddSizeError: "set odd_size to pad or crop",
    errors.NothingLeftError: "set odd_size to pad",
    errors.TooSmallError: "set fit to pad, or a larger target",
    errors.WrongSizeError: _wrong_size,
    errors.NotPixelsError: "a latent is decoded by the VAE that made it, not by Pixel-Space VAE",
    errors.BrokenPixelsError: "the sampler that made them failed; load the model with PiD Loader, which repeats such "
    "steps in float32",
    errors.BrokenCaptionError: _broken_caption,
    errors.WrongEncoderError: _wrong_encoder,
    errors.NoCaptionError: "write it with PiD Save Caption",
}
