"""Shards: which rows of a manifest are this process's, where several work on it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from ..printable import quoted

# (this one's number, how many there are), the first pair that is set; the number of an array begins where it likes
RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")


class Shard(NamedTuple):
    """Rows whose index leaves `number` when divided by `shards`."""

    number: int = 0
    shards: int = 1

    def has(self, index: int) -> bool:
        """Whether the row at this place in the manifest is one of them."""
        return index % self.shards == self.number

    @property
    def suffix(self) -> str:
        """Of its files' names."""
        return "" if self.shards == 1 else f"-{self.number}-of-{self.shards}"


def find_shard(asked: str | None, environment: Mapping[str, str] | None = None) -> Shard:
    """The shard "I/N", or what torchrun and SLURM say of this process; all rows where nobody says anything.

    Never by the rank within a machine: two machines would do the same rows. Within a job array each task's processes
    share the task's rows. Raises ValueError in one line.
    """
    if asked is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", asked)
        if not match or not 0 <= int(match[1]) < int(match[2]):
            raise ValueError(f"--shard is {quoted(asked)}; such as 0/3, 1/3 or 2/3 is needed")
        return Shard(int(match[1]), int(match[2]))
    values = os.environ if environment is None else environment
    shard = Shard()
    for number, count in RANKS:
        if _is_number(values, number, count) and int(values[count]) > 1:
            shard = Shard(int(values[number]), int(values[count]))
            break
    if _is_number(values, *ARRAY):
        task, first, tasks = (int(values[name]) for name in ARRAY)
        shard = Shard((task - first) * shard.shards + shard.number, tasks * shard.shards)
    if not 0 <= shard.number < shard.shards:
        raise ValueError(
            f"the environment says that this is process {shard.number} of {shard.shards} (array ids with a step?): say "
            "which it is with --shard"
        )
    return shard


def _is_number(values: Mapping[str, str], *names: str) -> bool:
    return all(values.get(name, "").isdecimal() for name in names)
