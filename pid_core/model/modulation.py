"""The patch blocks' modulations at the noise levels of a run, which depend on nothing but the level and the weights.

Their matrices are more than a quarter of a released network (793 MB of 2.8 GB in bfloat16), and each is used for one
row. Worked out for all levels of a run when a block is first called, they are read once instead of in every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

from .blocks import PatchBlock

Lines = tuple[Tensor, Tensor]  # of the image's and of the caption's stream, each [B, 1, 6 * D] in the compute dtype


class Modulations:
    """Those of a run; valid while the weights stay what they are.

    Every level's are the product that a call at that level alone would do, so they are the same to the bit.
    timesteps: the run's, 1000 * t. A call at another one is worked out when it comes.
    """

    def __init__(self, timesteps: Iterable[float]):
        self._timesteps = list(dict.fromkeys(timesteps))
        self._lines: dict[tuple, dict[float, Lines]] = {}

    def at(self, timestep: float) -> Level:
        return Level(self, timestep)

    def lines(
        self, depth: int, block: PatchBlock, timestep: float, place: tuple, condition: Callable[[float], Tensor]
    ) -> Lines:
        """The block's at this timestep. condition: the vector c [B, 1, D] that a call at a timestep modulates with.

        place: what c's shape, dtype and device follow from.
        """
        lines = self._lines.setdefault((depth, *place), {})
        if timestep not in lines:
            missing = self._timesteps if timestep in self._timesteps else [timestep]
            cs = [condition(t) for t in missing]
            lines.update(zip(missing, block.modulations(cs), strict=True))
        return lines[timestep]


class Level(NamedTuple):
    """Where a call is in its run: all its images are at this timestep."""

    run: Modulations
    timestep: float
