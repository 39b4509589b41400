"""PiD Check's first line on PiD Decode: how far a finished decode is from its source."""

from __future__ import annotations

from torch import Tensor

from ...pid_core.images.agreement import agreement_of, check_source
from ...pid_core.log import log
from ...pid_core.printable import printable
from .inputs import Framed
from .jobs import row_of
from .sources import source_if_there


def agreement_lines(images: Tensor, reference: Tensor | None, framing: Framed | None, latent: dict) -> list[str]:
    """A line for images [B, H, W, C], of several about the one that is furthest; none where there is no source.

    It only informs: what goes wrong with it is for the log, and costs no decode.
    """
    try:
        # what was finished lies in the whole picture, which the VAE's decode of the canvas need not be
        source = source_if_there(None if framing is not None else reference, framing, latent)
        if source is None:
            return []
        check_source(images, source)
        found = [agreement_of(image, row_of(source, i)[0]) for i, image in enumerate(images)]
    except (ValueError, RuntimeError) as error:
        log.warning("how far the picture is from its source is not shown: %s", printable(error, 300))
        return []
    number, furthest = min(enumerate(found, start=1), key=lambda pair: pair[1].agreement)
    return [furthest.describe() + (f", of {len(found)} images the furthest: {number}" if len(found) > 1 else "")]
