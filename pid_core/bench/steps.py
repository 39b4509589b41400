"""Time of a step and the memory of a decode, by the windows that the memory model plans."""

from __future__ import annotations

import time
import warnings
from functools import partial

import torch

from ..machine.memory import free_memory
from ..sampling.decode import decode, decode_memory
from ..windows.plan import OVERLAP, NoPlanError, TooLittleMemoryError
from .measure import free, synchronise, watched
from .rows import Row, in_steps
from .subject import Inputs, Subject, whole_cells

KEY = "steps"


def title_of(side: int) -> str:
    """The row's name."""
    return f"decode of {side} x {side}"


def measure_steps(subject: Subject, side: int, steps: int, *, warm_up: bool) -> Row:
    """A decode in `steps` steps, two at least: the first one is none of those that the time of a step is told from.

    warm_up: a step before, so that a GPU has chosen and compiled its kernels. Raises TooLittleMemoryError.
    """
    config, device = subject.config, subject.device
    side = whole_cells(side, config)
    free(device)
    size = subject.net.compute_dtype.itemsize
    memory = decode_memory(config, side, side, device, budget=free_memory(device), dtype_bytes=size)
    try:
        plan = memory.plan(side, side, OVERLAP)
    except NoPlanError as error:
        raise TooLittleMemoryError(f"it does not fit: {memory.shortage(error)}") from None
    inputs = Inputs.draw(subject, side, side)
    marks: list[float] = []

    def callback(*_) -> None:
        synchronise(device)
        marks.append(time.perf_counter())

    run = partial(decode, subject.net, inputs.latent, inputs.caption, 0.1, windows=plan, seed=0)
    if warm_up:
        run(steps=1)
    with warnings.catch_warnings(record=True) as said, watched(device) as peak:
        warnings.simplefilter("always")
        begin = time.perf_counter()
        image = run(steps=steps, callback=callback)
        synchronise(device)
        whole = time.perf_counter() - begin
    subject.decoded(subject.net)
    step = (marks[-1] - marks[0]) / (len(marks) - 1)
    expected = memory.of_plan(plan)
    in_windows = "in one frame" if plan.count == 1 else f"in {plan.count} windows of {plan.size[1]} x {plan.size[0]}"
    times = f"{step:.3g} s a step, {whole:.3g} s in all for {in_steps(steps)}"
    text = f"{in_windows}: {times}; {_memory(device, peak.bytes, expected)}"
    notes = [str(one.message) for one in said if "memory" in str(one.message)]
    values = {
        "side": side,
        "windows": plan.count,
        "window_height": plan.size[0],
        "window_width": plan.size[1],
        "steps": steps,
        "step_s": step,
        "decode_s": whole,
        "peak_bytes": peak.bytes,
        "expected_bytes": expected,
        "finite": bool(torch.isfinite(image).all()),
    }
    return Row(KEY, title_of(side), "; ".join([text, *notes]), values=values)


def _memory(device: torch.device, peak: int | None, expected: float) -> str:
    told = f"{expected / 1e9:.2f} GB expected"
    if not peak:
        return f"memory not told by this device, {told}"
    whose = " of the process" if device.type == "cpu" else ""  # with what its allocator keeps
    return f"{peak / 1e9:.2f} GB{whose} above the weights, {told} ({peak / expected:.2f} times that)"
