"""A bar on stderr while a picture is drawn: how much is done, how fast, how long the rest takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(flop: float) -> Iterator[Callable[[float], None]]:
    """Gives what is to be called with the fraction that is done. flop: all of the work.

    By tqdm, which ComfyUI brings; where it is not there, a line for every tenth.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        yield _lines()
        return
    layout = "{percentage:3.0f}% |{bar:24}| {elapsed} so far, {remaining} left, {rate_fmt}"
    with tqdm(total=flop, unit="FLOP", unit_scale=True, bar_format=layout, file=sys.stderr, mininterval=0.2) as bar:
        yield lambda fraction: bar.update(fraction * flop - bar.n)


def _lines() -> Callable[[float], None]:
    tenths = 0

    def show(fraction: float) -> None:
        nonlocal tenths
        if int(10 * fraction) > tenths:
            tenths = int(10 * fraction)
            print(f"{10 * tenths} %", file=sys.stderr, flush=True)

    return show
