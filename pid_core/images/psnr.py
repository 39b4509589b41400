"""How close two pictures are."""

from __future__ import annotations

import math

from torch import Tensor


def psnr(image: Tensor, reference: Tensor, *, span: float = 2.0) -> float:
    """Peak signal to noise ratio in dB; infinite where they are equal. Both of one shape.

    span: from the least to the largest value there can be, 2 for values in [-1, 1].
    """
    square = float((image - reference).double().square().mean())
    return math.inf if square == 0 else 10 * math.log10(span**2 / square)
