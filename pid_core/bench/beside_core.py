"""Our network beside ComfyUI core's own, with the same weights, the same noise and in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from .measure import free, seconds_of, watched
from .rows import SKIPPED, Row, Value
from .subject import Inputs, Subject, T, whole_cells

KEY = "core"
TELLING = 50e6  # bytes; what is less, a process may have had already
STEPS = 4  # of the decode that times are compared for: core runs its latent branch in each, ours once
# x, timestep [1], caption, latent, degrade_sigma [1] -> velocity [1, 3, H, W]
CoreCall = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
# Makes core's network of the weights that ours has; by the name of the attention it runs. ValueError where it cannot.
MakeCore = Callable[[torch.nn.Module], Mapping[str, CoreCall]]


def title_of(side: int) -> str:
    """The row's name."""
    return f"ComfyUI core's network, {side} x {side}"


def measure_beside_core(subject: Subject, make: MakeCore, side: int, turns: int) -> Row:
    """Times taking turns, behind one call of each; the difference is of one call's outputs."""
    device, side = subject.device, whole_cells(side, subject.config)
    try:
        calls = make(subject.net)
    except ValueError as error:
        return Row(KEY, title_of(side), str(error), SKIPPED)
    inputs = Inputs.draw(subject, side, side)
    timestep = torch.tensor([1000 * T], device=device)
    features: list[Tensor] = []

    def trunk() -> None:
        features[:] = [subject.net.encode_lq(inputs.latent, side, side)]

    def ours() -> Tensor:
        options = {"lq_features": features[0], "degrade_sigma": inputs.sigma}
        return subject.net(inputs.x, timestep, inputs.caption, **options)

    def core(call: CoreCall) -> Tensor:
        return call(inputs.x, timestep, inputs.caption, inputs.latent, inputs.sigma)

    with torch.inference_mode():
        trunk()
        wanted = {name: core(call).float() for name, call in calls.items()}
        off = {name: _difference(ours().float(), out) for name, out in wanted.items()}
        wanted.clear()
        times: dict[str, list[float]] = {name: [] for name in ("ours", "trunk", *calls)}
        for _ in range(turns):
            times["trunk"].append(seconds_of(trunk, device))
            times["ours"].append(seconds_of(ours, device))
            for name, call in calls.items():
                times[name].append(seconds_of(partial(core, call), device))
        peaks = {"ours": _peak(device, ours)} | {name: _peak(device, partial(core, c)) for name, c in calls.items()}
    free(device)
    found = {name: statistics.median(taken) for name, taken in times.items()}
    return _row(side, found, off, peaks)


def _row(side: int, times: dict[str, float], off: dict[str, float], peaks: dict[str, int | None]) -> Row:
    ours = STEPS * times["ours"] + times["trunk"]
    best = min(off, key=lambda name: times[name])
    ratio = STEPS * times[best] / ours
    several = "" if len(off) == 1 else f" with {best}, the faster of its attentions here"
    memory, own, theirs = "", peaks["ours"], peaks[best]
    if own and theirs and min(own, theirs) > TELLING:
        memory = f"; memory of a call {own / 1e9:.2f} and {theirs / 1e9:.2f} GB"
    text = (
        f"ours is {ratio:.2f} times as fast over {STEPS} steps{several} (a step {times['ours']:.3g} s, core's "
        f"{times[best]:.3g} s); outputs differ by {100 * off[best]:.2g} % (rms){memory}"
    )
    values: dict[str, Value] = {
        "side": side,
        "ratio": ratio,
        "step_s": times["ours"],
        "trunk_s": times["trunk"],
        "core_step_s": times[best],
        "core_attention": best,
        "difference": off[best],
        "peak_bytes": own,
        "core_peak_bytes": theirs,
    }
    return Row(KEY, title_of(side), text, values=values)


def _difference(ours: Tensor, core: Tensor) -> float:
    """Root mean square, relative to core's."""
    return float((ours - core).square().mean().sqrt() / core.square().mean().sqrt())


def _peak(device: torch.device, run: Callable[[], object]) -> int | None:
    with watched(device) as peak:
        run()
    return peak.bytes
