"""Regional captions on their way to the windows: PiD Regional Caption makes them, Context Window (PiD) takes them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pid_core.model.devices import without_float64
from ...pid_core.windows.regions import Region

Regions = io.Custom("PIDKIT_REGIONS")  # a list of RegionalCaption


class RegionalCaption(NamedTuple):
    """caption [1 or B, T, W] and its mask, where the text encoder gave one, for the windows in `region`."""

    region: Region
    caption: Tensor
    mask: Tensor | None

    def on(self, device: torch.device) -> RegionalCaption:
        mask = None if self.mask is None else self.mask.to(device)
        return self._replace(caption=without_float64(self.caption).to(device), mask=mask)

    def seen_from(self, top: int, left: int) -> RegionalCaption:
        """The same on a canvas that begins there in the picture."""
        return self._replace(region=self.region._replace(top=self.region.top - top, left=self.region.left - left))
