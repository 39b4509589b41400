"""What comes after a decode must not cost it: where memory is short, it is tried again, then in a thriftier way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import comfy.model_management

from ...pid_core.log import log
from ...pid_core.windows.run import is_out_of_memory

Result = TypeVar("Result")


def with_less(what: str, *ways: Callable[[], Result]) -> Result:
    """What the first of these ways gives that the memory suffices for; the first is tried once more with all freed.

    Raises what the last way raises, and anything but out of memory at once.
    """
    for attempt, way in enumerate((ways[0], *ways), start=1):
        try:
            return way()
        except RuntimeError as error:
            if not is_out_of_memory(error) or attempt > len(ways):
                raise
        # outside the except block, where the failed way's tensors are free
        log.warning("out of memory while %s; memory is freed and it is tried again", what)
        free_all()
    raise AssertionError  # not reached


def free_all() -> None:
    """Every model leaves the device, and what PyTorch holds for later goes back."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
