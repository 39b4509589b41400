"""The pictures that a run goes by: one to begin from, one to hold to at every step, one for colours behind the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from ...pid_core.captions.fingerprint import digest
from ...pid_core.images.colour import check_hold
from ...pid_core.latents.rgb import to_pixels
from ...pid_core.sampling.hold import Hold
from ...pid_core.sampling.start import check_start, sigmas_from
from .decoding import FROM_NOISE, Start
from .holding import describe_hold, hold_to
from .jobs import row_of


class Guide(NamedTuple):
    """colours: the picture [B, 3, h, w] that colour_hold and fidelity go by, if any. lines: for the node."""

    colours: Tensor | None
    colour_hold: str
    fidelity: float
    hold: Hold | None
    start: Start
    lines: tuple[str, ...] = ()

    @property
    def settings(self) -> tuple:
        """What of it is the same for all images; equal to () where nothing of it changes a run."""
        strength = None if self.hold is None else self.hold.strength
        if self.colours is None and strength is None and self.start.at == 1:
            return ()
        colours = () if self.colours is None else (self.colour_hold, self.fidelity)
        return colours, strength, self.start.at

    def mark(self, index: int) -> tuple:
        """Equal for images whose pictures are equal."""
        pictures = self.colours, None if self.hold is None else self.hold.reference, self.start.picture
        return tuple(None if one is None else digest(row_of(one, index)) for one in pictures) if self.settings else ()


def guide_for(
    shape: Sequence[int],
    steps: int,
    find_reference: Callable[[], Tensor | None],
    *,
    colour_hold: str = "none",
    fidelity: float = 0.0,
    hold: float = 0.0,
    start_at: int = 1,
    start_image: Tensor | None = None,
) -> Guide:
    """For pixels of this shape, [B, 3, H, W]. find_reference: gives [B, 3, h, w] in [-1, 1], None where there is none.

    Raises ValueError in one line for all that does not fit, before anything is drawn.
    """
    sigmas_from(start_at, steps)
    has_colours = colour_hold != "none" or fidelity > 0
    begins = start_at > 1
    needed = has_colours or hold > 0 or (begins and start_image is None)
    reference = find_reference() if needed else None
    if reference is None and (has_colours or hold > 0):
        raise ValueError(
            "colour_hold, fidelity and hold need a reference: connect VAE Decode of the latent, or the picture it was "
            "made from, to reference; or set colour_hold to none, fidelity and hold to 0"
        )
    if has_colours:
        assert reference is not None
        check_hold(shape, reference, colour_hold, fidelity)
    start, lines = FROM_NOISE, []
    if begins:
        start = Start(start_at, reference if start_image is None else to_pixels(start_image))
        if start.picture is None:
            raise ValueError(
                f"start_at is {start_at}, and there is no picture to start from: connect one to start_image, or VAE "
                "Decode of the latent to reference; or set start_at to 1"
            )
        check_start(shape, start.picture, start_at)
        lines.append(start.describe(steps))
    elif start_image is not None:
        lines.append("start_image is not used: start_at is 1, which begins with noise")
    held = None
    if hold > 0 and reference is not None:
        held = hold_to(reference, hold)
        held.check(shape)
        lines += describe_hold(held)
    return Guide(reference if has_colours else None, colour_hold, fidelity, held, start, tuple(lines))
