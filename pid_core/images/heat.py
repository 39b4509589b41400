"""Values over a picture, as colours."""

from __future__ import annotations

import torch
from torch import Tensor

# From 0 to 1, evenly spaced; told apart in grey, too.
COLOURS = ((0.05, 0.10, 0.45), (0.00, 0.45, 0.70), (0.25, 0.72, 0.45), (0.95, 0.75, 0.20), (1.00, 0.93, 0.60))
OPACITY = 0.6
FAINT = 0.02  # values up to it are shown fainter, 0 not at all


def heat(values: Tensor, picture: Tensor | None = None) -> Tensor:
    """values [H, W], 0 to 1, as colours [H, W, 3] in [0, 1]; over a picture [H, W, 3], which is shown in grey.

    Where the value is 0 the picture (or black) is as it is.
    """
    places = values.clamp(0, 1) * (len(COLOURS) - 1)
    colours = torch.tensor(COLOURS, dtype=values.dtype, device=values.device)
    below = places.floor().long().clamp(max=len(COLOURS) - 2)
    shown = torch.lerp(colours[below], colours[below + 1], (places - below)[..., None])
    if picture is None:
        return shown * (values > 0)[..., None]
    weight = (values / FAINT).clamp(0, 1)[..., None] * OPACITY
    grey = picture.mean(-1, keepdim=True)
    return torch.where(weight > 0, torch.lerp(grey.expand_as(shown), shown, weight), picture)
