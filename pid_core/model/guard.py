"""NaN guard: a network call that gives NaN or infinite values is repeated in float32 with PyTorch's own attention.

Short dtypes overflow on some GPUs and some attention kernels fail on some shapes; either one turns the image black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import NonFiniteError
from ..log import log
from .attention import Attention, sdpa
from .driver import Driver

Result = TypeVar("Result")
PROJECTOR = "the latent's projector"  # its name in messages


class Guarded(nn.Module):
    """A network whose calls can be repeated in float32.

    It has `compute_dtype`, what its matrix products run in, and `attention`; `driver` runs its calls.
    `repeated` lists the calls of the last run that had to be repeated. `run_device`: where calls run, where that is not
    where the weights are (None: it is).
    """

    compute_dtype: torch.dtype
    attention: Attention
    driver: Driver

    def __init__(self) -> None:
        super().__init__()
        self.repeated: list[str] = []
        self.run_device: torch.device | None = None

    @property
    def runs_on(self) -> torch.device:
        """Where what goes in must be."""
        return next(self.parameters()).device if self.run_device is None else self.run_device

    def numerics(self) -> str:
        """What the network computes in, for messages: "bfloat16 with attend"."""
        return f"{str(self.compute_dtype).removeprefix('torch.')} with {self._attention_name()}"

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """While this lasts the network computes in float32 with PyTorch's attention; its weights keep their dtype."""
        before = self.compute_dtype, self.attention
        self.compute_dtype, self.attention = torch.float32, sdpa
        try:
            with self._widened(), self.driver.uncompiled():
                yield
        finally:
            self.compute_dtype, self.attention = before

    def _widened(self) -> AbstractContextManager:
        return widened_layers(self)

    def _attention_name(self) -> str:
        return getattr(self.attention, "__name__", type(self.attention).__name__)


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. Needs no memory of its own."""
    if bool(values.sum(dtype=torch.float32).isfinite()):
        return True
    low, high = values.aminmax()  # finite values may add up to more than a float holds
    return bool(low.isfinite() & high.isfinite())


@dataclass
class _Together:
    """Network calls, in their order. suspects: those of a first attempt that were not finite; None: this is the first.

    sums: by a call's number, one number of the first attempt on its device that is finite only where the result is.
    facts: one per `taken_for_granted`, which is finite where it is true.
    """

    suspects: frozenset[int] | None = None
    sums: dict[int, Tensor] = field(default_factory=dict)
    facts: list[Tensor] = field(default_factory=list)
    calls: int = 0

    def number(self) -> int:
        self.calls += 1
        return self.calls - 1


_together: ContextVar[_Together | None] = ContextVar("pidkit_together", default=None)


def checked_together(run: Callable[[], Result]) -> Result:
    """run(), whose network calls are all launched before the first of them is checked: one wait for the device.

    Where one was not finite, or what was taken for granted is not so, run() is called again: calls that were not finite
    are then made in float32 at once, the others are checked one by one. Raises what `finite_or_repeat` raises.
    """
    first = _Together()
    out = _within(first, run)
    found = [*first.sums.values(), *first.facts]
    totals = torch.stack(found).cpu().tolist() if found else []
    if all(map(math.isfinite, totals)):
        return out
    del out
    suspects = {number for number, total in zip(first.sums, totals, strict=False) if not math.isfinite(total)}
    if first.calls > len(first.sums):  # a call raised (no memory for it), and the second run's calls will be others
        suspects = set()
    return _within(_Together(frozenset(suspects)), run)


def taken_for_granted(fact: Tensor) -> bool:
    """Whether what a tensor of bools says may be taken for true, because `checked_together` looks at it later."""
    together = _together.get()
    if together is None or together.suspects is not None:
        return False
    together.facts.append(fact.all().float().reciprocal())
    return True


def _within(calls: _Together, run: Callable[[], Result]) -> Result:
    token = _together.set(calls)
    try:
        return run()
    finally:
        _together.reset(token)


def finite_or_repeat(
    net: Guarded, run: Callable[[], Tensor], what: Callable[[], str], *, at_once: bool = False, **inputs: Tensor
) -> Tensor:
    """run(), a call of `net`; once more inside `net.in_float32()` where it gives NaN or infinite values.

    what: names the call in messages, such as "the network at noise level 0.866". inputs: tensors that go in, by the
    name the user knows them by: where one is not finite itself, there is nothing to repeat. at_once: checked now, also
    inside `checked_together`.
    Raises NonFiniteError.
    """
    together = None if at_once else _together.get()
    number = 0 if together is None else together.number()
    if together is None or together.suspects is None or number not in together.suspects:
        out = run()
        if together is not None and together.suspects is None:
            together.sums[number] = out.sum(dtype=torch.float32)
            return out
        if all_finite(out):
            return out
        del out
    for name, tensor in inputs.items():
        if not all_finite(tensor):
            raise NonFiniteError(f"{what()}: {name} holds NaN or infinite values; the step that made it failed")
    used = net.numerics()
    log.warning(
        "%s gave NaN or infinite values in %s; it is repeated in float32 with PyTorch's attention", what(), used
    )
    with net.in_float32():
        out = run()
        again = net.numerics()
    if all_finite(out):
        net.repeated.append(f"{what()} in {used}")
        return out
    raise NonFiniteError(
        f"{what()} gave NaN or infinite values in {used}, and again in {again}: the checkpoint may be damaged, or a "
        "LoRA or patch on the model too strong; fetch the file again, or take patches off"
    )


@contextmanager
def widened_layers(net: nn.Module) -> Iterator[None]:
    """Layers of `net` run on float32 copies of their weights, each made when its layer is called and dropped after.

    The weights themselves stay as they are, so this needs memory for one layer and not for the network.
    """
    narrow_weights: dict[nn.Module, dict] = {}

    def widen(layer: nn.Module, _) -> None:
        narrow_weights[layer] = dict(layer._parameters)
        layer._parameters.update({k: p if p is None else p.float() for k, p in narrow_weights[layer].items()})

    def narrow(layer: nn.Module, *_) -> None:
        layer._parameters.update(narrow_weights.pop(layer))

    handles = []
    for layer in net.modules():
        if next(layer.children(), None) is None and any(p.dtype != torch.float32 for p in layer.parameters()):
            handles.append(layer.register_forward_pre_hook(widen))
            handles.append(layer.register_forward_hook(narrow, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
