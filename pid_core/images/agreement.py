"""How close a picture comes to its source when it is made as small: in dB, and in colour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..latents.reference import check_reference, crop_as_encoded, resize
from .difference import ciede2000, lab_of
from .psnr import psnr

REDUCTION = 4  # PiD's own; a network knows no more of the source than is left after it
NEARLY = 0.97  # of it: rounded sizes
CELLS = 16  # along the longer side: of such cells' means a cast is told


@dataclass(frozen=True)
class Agreement:
    """agreement: PSNR to the source after the reduction, in dB. cast: mean CIEDE2000 of the means of coarse cells.

    reduction: how many times smaller the result's sides were made.
    """

    agreement: float
    cast: float
    reduction: float

    def describe(self) -> str:
        """One line for people."""
        close = "the same as" if math.isinf(self.agreement) else f"{self.agreement:.1f} dB from"
        return f"after {self.reduction:.3g}x reduction {close} the source, cast {self.cast:.1f} (CIEDE2000)"


def check_source(result: Tensor, source: Tensor) -> None:
    """Raise ValueError in one line if sources [B or 1, h, w, C] do not fit pictures [B, H, W, C]."""
    shape = (result.shape[0], 3, *result.shape[1:3])
    check_reference(shape, source[..., :3].movedim(-1, 1), "source", "give the picture that the image was made from")


def agreement_of(result: Tensor, source: Tensor) -> Agreement:
    """How close a picture [H, W, 3] comes to its source [h, w, 3], both in [0, 1].

    Both are made as large as the source or a quarter of the result's sides, whichever is less: what PiD is shown. A
    source that VAE Encode would have cropped is cropped the same way.
    """
    small, wanted = reduced_pair(result, source)
    cell = max(small.shape[1:]) / CELLS
    rows, cols = (max(1, round(side / cell)) for side in small.shape[1:])
    cells = (lab_of(F.adaptive_avg_pool2d(image[None], (rows, cols))[0].movedim(0, -1)) for image in (small, wanted))
    return Agreement(psnr(small, wanted, span=1.0), float(ciede2000(*cells).mean()), result.shape[0] / small.shape[1])


def reduced_pair(result: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """A picture [H, W, 3] and its source [h, w, 3] at the common size of `agreement_of`: [3, h', w'] float32, CPU."""
    height, width = result.shape[:2]
    source = crop_as_encoded(source[..., :3].movedim(-1, 0), height, width)
    rows, cols = source.shape[1:]
    size = max(1, round(height / REDUCTION)), max(1, round(width / REDUCTION))
    if math.sqrt(height * width / (rows * cols)) >= REDUCTION * NEARLY:
        size = rows, cols
    small, wanted = (
        torch.stack([resize(channel, size) for channel in image]).cpu().clamp(0, 1)
        for image in (result[..., :3].movedim(-1, 0), source)
    )
    return small, wanted
