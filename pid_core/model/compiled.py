"""A network's calls through torch.compile: its blocks one by one, or the whole call at once.

A graph is made for one size of window; it works on all tokens in one chunk. What the compiler cannot do is run
uncompiled, and said so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import one_line
from ..log import log
from ..version import too_old
from . import fused
from .fused import COMPILED, COMPILED_KERNELS

if TYPE_CHECKING:
    from .inputs import Inputs
    from .network import PiDNetwork

HOW = ("blocks", "whole")
# PyTorch stops compiling a function after 8 graphs without an error. A size takes three: the patch block, the last
# one, which leaves the caption alone, and the pixel block.
MOST_GRAPHS = 64
# Up to so many pixels a card waits for its host, so fewer launches win. On an H100 a step of 1024 x 1024 takes 17.1 ms
# without the kernels in the graph and 22.1 with them, of 2048 x 2048 108.3 and 101.9.
FEW_PIXELS = 1448**2


class Compiled:
    """How a network's calls are compiled; stands on its driver as `compiled`.

    how: "blocks" compiles each block, and blocks of one kind share their graph; "whole" compiles the call as one.
    kernels: whether in a graph the fused kernels stay operations of their own, where they run at all, or the plain
    definitions are taken, for the compiler to fuse; None: as is faster at the call's size. The kernels keep a pixel's
    MLP in registers, which no compiler does; a graph without them launches less.
    backend and options: those of torch.compile.
    `while_compiling` is entered around a call that makes a new graph. `why_not` says why no new ones are made any more.
    Raises ValueError for an unknown `how` and for a PyTorch that is too old.
    """

    def __init__(self, how: str, *, kernels: bool | None = None, backend: str | Callable = "inductor", **options):
        if how not in HOW:
            raise ValueError(f"compile is one of off, {', '.join(HOW)}, got {how}")
        if oldest := too_old("torch", torch.__version__):
            raise ValueError(
                f"compile needs PyTorch {oldest} or newer, this is {torch.__version__}: update "
                "PyTorch, or do not compile"
            )
        self.how, self.kernels = how, kernels
        self.while_compiling: Callable[[], AbstractContextManager] = nullcontext
        self.why_not: str | None = None
        self.active = False  # during a call that is compiled
        self._allowed = True
        self._graphs: set[tuple] = set()
        # PyTorch 2.5 raises at the limit only where a graph may not break
        self._call = torch.compile(_call, backend=backend, dynamic=False, fullgraph=_settings()[1] is None, **options)

    def kind_of(self, device: torch.device, pixels: int) -> str:
        """As `fused.kind_of`, for a compiled call on images of so many pixels together."""
        kernels = pixels > FEW_PIXELS if self.kernels is None else self.kernels
        return COMPILED_KERNELS if kernels and fused.kind_of(device) == "kernels" else COMPILED

    def run(self, driven: Callable[[], Tensor], net: PiDNetwork, inputs: Inputs) -> Tensor:
        """A whole network call, compiled where it can be.

        driven(): the call, whose blocks go through `block`. net.predict(inputs): the same, to be one graph. inputs: the
        images [B, 3, H, W] first, then whatever else the call takes; none of it is changed. What either itself raises
        goes on.
        """
        key = tuple((t.shape, t.dtype) for t in (*inputs, *(inputs.lq or ())) if isinstance(t, Tensor))
        if self._allowed and (self.why_not is None or key in self._graphs):
            try:
                with self._running(inputs[0]), nullcontext() if key in self._graphs else self._making():
                    out = self._call(_predict, net, inputs) if self.how == "whole" else driven()
                self._graphs.add(key)
                return out
            except Exception as error:
                failure = _failure(error)
                if failure is None:
                    raise
                self.why_not = failure
            log.warning(f"not compiled: {self.why_not}")
        return driven()

    def block(self, function: Callable, *args):
        """function(*args): a block of a call that `run` is at."""
        return self._call(function, *args) if self.active and self.how == "blocks" else function(*args)

    @contextmanager
    def off(self) -> Iterator[None]:
        """While this lasts nothing is compiled."""
        before, self._allowed = self._allowed, False
        try:
            yield
        finally:
            self._allowed = before

    @contextmanager
    def _making(self) -> Iterator[None]:
        """New graphs. Those that PyTorch 2.5 loads on a CPU set their thread to flush the smallest numbers to zero."""
        flushed = flushes_to_zero()
        try:
            with self.while_compiling():
                yield
        finally:
            if not flushed:
                torch.set_flush_denormal(False)

    @contextmanager
    def _running(self, x: Tensor) -> Iterator[None]:
        self.active = True
        try:
            kind = self.kind_of(x.device, x.shape[0] * x.shape[2] * x.shape[3])
            with _limits(), fused.in_graphs(kind == COMPILED_KERNELS):
                yield
        finally:
            self.active = False


def flushes_to_zero() -> bool:
    """Whether this thread flushes the smallest numbers to zero."""
    return sys.float_info.min / 2 == 0


def _call(function: Callable, *args):
    return function(*args)


def _predict(net: PiDNetwork, inputs: Inputs) -> Tensor:
    return net.predict(inputs)  # PyTorch 2.5 forgets a graph together with the bound method it was made of


def _failure(error: Exception) -> str | None:
    """In one line what kept the compiler from a graph; None for an error of what it ran."""
    known = torch._dynamo.exc  # not imported with this file: it takes as long as PyTorch itself
    # PyTorch 2.6 and 2.5 have other names for it
    names = ("FailOnRecompileLimitHit", "FailOnCacheLimitHit", "CacheLimitExceeded")
    if isinstance(error, tuple(getattr(known, name) for name in names if hasattr(known, name))):
        return f"{MOST_GRAPHS} graphs are there, and no more are made: restart for other sizes"
    if not isinstance(error, known.TorchDynamoException):
        return None
    cause = getattr(error, "inner_exception", error)
    line = next(iter(str(cause).strip().splitlines()), "")
    return one_line(f"torch.compile failed, {type(cause).__name__}: {line}"[:300])


def _limits() -> AbstractContextManager:
    limit, error = _settings()
    return torch._dynamo.config.patch({limit: MOST_GRAPHS} | ({} if error is None else {error: True}))


def _settings() -> tuple[str, str | None]:
    """Names of PyTorch's settings: how many graphs a function may have, and that it is an error to want more."""
    settings = torch._dynamo.config
    names = ("recompile_limit", "fail_on_recompile_limit_hit"), ("cache_size_limit", "fail_on_cache_limit_hit")
    limit, error = next(pair for pair in names if hasattr(settings, pair[0]))
    return limit, error if hasattr(settings, error) else None
