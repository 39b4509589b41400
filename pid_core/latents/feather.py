"""A mask with a soft border."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def feathered(mask: Tensor, reach: float) -> Tensor:
    """[B, 1, h, w] in 0 to 1 with a border that falls off, smoothly, over about `reach` pixels outside of it.

    What was 1 stays 1, and what is farther away than `reach` stays 0. Below 4 pixels nothing changes.
    """
    half = int(reach / 4)  # the mask grows by two of them, and two blurs reach as far
    if half < 1:
        return mask
    for down, across in ((2 * half, 0), (0, 2 * half)):
        mask = F.max_pool2d(mask, (2 * down + 1, 2 * across + 1), stride=1, padding=(down, across))
    for down, across in ((half, 0), (0, half)) * 2:
        padded = F.pad(mask, (across, across, down, down), mode="replicate")
        mask = F.avg_pool2d(padded, (2 * down + 1, 2 * across + 1), stride=1)
    return mask
