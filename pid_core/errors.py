"""What the core refuses, how this pack's own exceptions print, and how those that leave it are made fit for a log.

An error of the core says what is wrong, with its numbers, and keeps as attributes what others word anew. What to do
about it depends on what the user has before him: nodes (nodes/comfy/remedies.py) and the command line
(commands/remedies.py) add it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from .printable import printable

Kind = TypeVar("Kind", bound=type[Exception])
LONGEST_LINE = 1500  # characters; a message of ours with every part of it at its longest stays below


def prints_bare(kind: Kind) -> Kind:
    """Class decorator for every exception class here: ComfyUI prints a type with its module, unless it is a builtin.

    The module of a custom node is the path of its folder, which would stand before the line that says what to do.
    """
    kind.__module__ = "builtins"
    return kind


MOST_VALUES = 8  # that a message lists


@prints_bare
class PiDError(ValueError):
    """What the core refuses. The text is what is wrong in one line; the remedy is for others to add."""

    place = ""

    def within(self, place: str) -> PiDError:
        """The same error, said of a place, such as a file's name."""
        self.place = f"{place}: {self.place}"
        self.args = (f"{place}: {self.args[0]}",)
        return self

    @property
    def facts(self) -> str:
        """The text without the place."""
        return str(self).removeprefix(self.place)


@prints_bare
class NoImageLatentError(PiDError):
    """A latent whose shape is not that of images."""

    def __init__(self, shape: Sequence[int]):
        super().__init__(f"the latent must have shape [B, C, h, w], got {list(shape)}")


@prints_bare
class BrokenLatentError(PiDError):
    """A latent with values that are NaN or infinite."""

    def __init__(self, count: int):
        super().__init__(f"the latent holds {count} NaN or infinite values")


@prints_bare
class BlankLatentError(PiDError):
    """A latent, or one image of it, that is 0 everywhere. Never raised: a warning."""

    def __init__(self) -> None:
        super().__init__("the latent is blank, all its values are 0")


@prints_bare
class WrongChannelsError(PiDError):
    """A latent of `found` channels where `needed` are; None where no checkpoint is known.

    families: those with `found` channels; takes: those with `needed`. chosen: the family the caller named, None: it is
    the checkpoint that needs them. foreign: whose they are where PiD has no checkpoint for such. blank: it is all 0.
    """

    def __init__(
        self,
        found: int,
        needed: int | None,
        *,
        families: Sequence[str] = (),
        takes: Sequence[str] = (),
        chosen: str | None = None,
        foreign: str | None = None,
        blank: bool = False,
    ):
        self.found, self.needed, self.families, self.takes = found, needed, list(families), list(takes)
        self.chosen, self.foreign, self.blank = chosen, foreign, blank
        what = f"the latent has {self.channels()}"
        needs = f"; this checkpoint takes {needed}, {in_words(takes) or 'its own'}" if needed is not None else ""
        super().__init__(f"{what}{needs}" if chosen is None else f"{what}; those of {chosen} have {needed}")

    def channels(self, **names: str) -> str:
        """What the latent is, in a few words. names: others for families."""
        if self.foreign is not None:
            return f"{self.found} channels, as those of {self.foreign} have, which PiD has no checkpoint for"
        if self.found == 3:
            return "3 channels, which is pixels"
        known = in_words(names.get(name, name) for name in self.families)
        return f"{self.found} channels, {known or 'of no family that PiD knows'}"


@prints_bare
class UnclearFamilyError(PiDError):
    """A latent of as many channels as several families have."""

    def __init__(self, channels: int, families: Sequence[str]):
        super().__init__(f"a latent with {channels} channels can be of {in_words(families)}")


@prints_bare
class WrongFamilyError(PiDError):
    """A latent said to be of the family `chosen`, of `channels`, and a checkpoint for `made_for`, or for `needed`."""

    def __init__(self, chosen: str, made_for: str | None, channels: int, needed: int):
        super().__init__(
            f"latents of {chosen} have {channels} channels, this checkpoint takes {needed}"
            if made_for is None
            else f"the latent is said to be of {chosen}, but this checkpoint was made for {made_for}"
        )
        self.chosen, self.made_for, self.channels, self.needed = chosen, made_for, channels, needed


@prints_bare
class CarriedFamilyError(PiDError):
    """A latent that was stopped early as one of the family `own`, to be decoded as one of `chosen`."""

    def __init__(self, own: str, chosen: str):
        super().__init__(f"the latent was stopped early as one of {own}, but it is to be decoded as one of {chosen}")
        self.own, self.chosen = own, chosen


@prints_bare
class CarriedNoiseError(PiDError):
    """A latent that carries noise of level `sigma`, decoded at other `degrade_sigmas`. Never raised: a warning.

    latent_noise: "add" or "scale", which change that noise; "keep" where the levels differ.
    """

    def __init__(self, sigma: float, degrade_sigmas: Sequence[float], latent_noise: str):
        values = ", ".join(f"{one:.3g}" for one in degrade_sigmas)
        if len(degrade_sigmas) > MOST_VALUES:  # those of a map
            values = f"{min(degrade_sigmas):.3g} to {max(degrade_sigmas):.3g}"
        more = "would be put on top, which PiD takes for picture" if latent_noise == "add" else "would be made weaker"
        super().__init__(
            f"degrade_sigma is {values}, but the latent was stopped early and carries noise of level {sigma:.3g}"
            if latent_noise == "keep"
            else f"the latent was stopped early and already carries noise of level {sigma:.3g}; "
            + (f"more {more}" if latent_noise == "add" else f"it {more}")
        )
        self.sigma, self.latent_noise = sigma, latent_noise


@prints_bare
class NoStopLevelError(PiDError):
    """A degrade_sigma that no latent which was stopped early has."""

    def __init__(self, sigma: float):
        super().__init__(f"degrade_sigma is {sigma:g}, but a latent that can be decoded is at 0 to below 1")


@prints_bare
class CheckpointFamilyError(PiDError):
    """A family said of a checkpoint that is not its."""


@prints_bare
class CheckpointScheduleError(PiDError):
    """A schedule said of a checkpoint that cannot have it."""


@prints_bare
class WrongSizeError(PiDError):
    """A picture of a size that cannot be: (height, width) `found`, and `needed` where only one can be."""

    def __init__(self, facts: str, found: Sequence[int], needed: Sequence[int] | None = None):
        super().__init__(facts)
        self.found, self.needed = tuple(found), None if needed is None else tuple(needed)


@prints_bare
class OddSizeError(WrongSizeError):
    """A picture with an odd side, where both must be even."""


@prints_bare
class NothingLeftError(WrongSizeError):
    """A picture of which nothing is left when its odd sides are cropped."""


@prints_bare
class TooSmallError(WrongSizeError):
    """A picture that is smaller than one cell of the latent once it is cropped."""


@prints_bare
class NotPixelsError(PiDError):
    """What is no picture's pixels, by its shape."""

    def __init__(self, shape: Sequence[int]):
        super().__init__(f"pixels are [B, 3, H, W], these have shape {list(shape)}")


@prints_bare
class NonFiniteError(PiDError):
    """A network call gave NaN or infinite values, in float32 too. One line: where, and in what it was computed."""

    def within(self, place: str) -> NonFiniteError:
        """The same error with a place before it, such as "step 2 of 4"."""
        return NonFiniteError(f"{place}, {self}")


@prints_bare
class BrokenPixelsError(NonFiniteError):
    """Pixels that hold NaN or infinite values."""

    def __init__(self) -> None:
        super().__init__("the pixels hold NaN or infinite values, which would be saved as black")


@prints_bare
class BrokenCaptionError(PiDError):
    """A caption with values that are NaN or infinite."""

    def __init__(self, count: int):
        super().__init__(f"the caption holds {count} NaN or infinite values: the text encoder failed")


@prints_bare
class WrongCaptionError(PiDError):
    """Captions of another shape than [B, tokens, width]."""

    def __init__(self, width: int, shape: Sequence[int]):
        super().__init__(f"this checkpoint needs captions [B, tokens, {width}], got {list(shape)}")


@prints_bare
class WrongEncoderError(PiDError):
    """A text encoder that is not the one PiD was trained with: of the kind `found`, or by how many `tokens` it gave."""

    def __init__(self, found: str, tokens: int | None = None, needed: int = 0):
        super().__init__(
            f"the text encoder is {found}, which PiD was not trained with"
            if tokens is None
            else f"the text encoder gave {tokens} tokens, PiD takes {needed}"
        )
        self.found, self.tokens = found, tokens


@prints_bare
class NoCaptionError(PiDError):
    """A file that is no caption."""

    def __init__(self, name: str):
        super().__init__(f"{name} is no caption")


def said_of(place: str, error: ValueError) -> ValueError:
    """An error with what it is said of before it, such as a file's name."""
    return error.within(place) if isinstance(error, PiDError) else ValueError(f"{place}: {error}")


def in_words(names: Iterable[str], word: str = "or") -> str:
    """Names as a sentence has them: "a", "a or b", "a, b or c"."""
    *rest, last = list(names) or [""]
    return f"{', '.join(rest)} {word} {last}" if rest else last


def one_line(text: object) -> str:
    """A whole message on one line that any log, terminal and socket takes."""
    return printable(text, LONGEST_LINE)


def print_on_one_line(error: BaseException) -> None:
    """Change an exception, and those behind it, so that its text is one line that any log takes.

    What stands in a message may come from outside: a file's name that is not UTF-8 raises in a log that is strict,
    and ComfyUI's then takes the thread with it that runs the prompts.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        text = _text(one)
        if text == one_line(text):
            continue
        if isinstance(one, OSError) and one.errno is not None:  # its text is made of these
            one.strerror = printable(one.strerror)
            one.filename = None if one.filename is None else printable(one.filename)
        else:
            one.args = (one_line(text),)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # somebody else's __str__
        return printable(error)
