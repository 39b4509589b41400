"""How long parts will take, from one small call, and which sizes are worth it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..model.config import PiDConfig
from ..model.cost import forward_work, priced, trunk_work
from .measure import seconds_of
from .subject import Inputs, Subject, T, whole_cells

PROBE = {"cpu": 256, "cuda": 512}  # side of the small call's canvas; a GPU is not busy with less
WANTED = (2048, 4096)
SMALLER = (1024, 512, 256)
# Seconds that one size may take before a smaller one stands in for it, where nobody asks for the size.
PATIENCE = {"cpu": 90.0, "else": 900.0}
QUICK = 0.25  # of it


class Estimate:
    """rate: work per second of a small call, as `cost.priced` counts it."""

    def __init__(self, config: PiDConfig, device: torch.device, rate: float):
        self._config, self._device, self._rate = config, device, rate

    @classmethod
    def of(cls, subject: Subject) -> Estimate:
        """From a call that is made twice: the first one is never like the others."""
        side = whole_cells(PROBE.get(subject.device.type, PROBE["cuda"]), subject.config)
        inputs = Inputs.draw(subject, side, side)
        timestep = torch.tensor([1000 * T], device=subject.device)

        def run() -> None:
            features = subject.net.encode_lq(inputs.latent, side, side)
            subject.net(inputs.x, timestep, inputs.caption, lq_features=features, degrade_sigma=inputs.sigma)

        with torch.no_grad():
            run()
            taken = seconds_of(run, subject.device)
        own = cls(subject.config, subject.device, 1.0)
        return cls(subject.config, subject.device, own.seconds(side, 1) / max(taken, 1e-6))

    def seconds(self, side: int, steps: float) -> float:
        """Of a decode in so many steps."""
        work = priced(forward_work(self._config, side, side), self._device.type)
        return (trunk_work(self._config, side, side) + steps * work) / self._rate

    def choose_sizes(self, steps: float, quick: bool) -> list[int]:
        """2048 and 4096, quick: 2048 alone; smaller ones where a decode would take too long."""
        patience = PATIENCE.get(self._device.type, PATIENCE["else"]) * (QUICK if quick else 1)
        wanted: Sequence[int] = WANTED[:1] if quick else WANTED
        chosen = [side for side in wanted if self.seconds(side, steps) <= patience]
        for side in SMALLER:
            if len(chosen) < len(wanted) and (self.seconds(side, steps) <= patience or side == SMALLER[-1]):
                chosen.append(side)
        return sorted(set(chosen))
