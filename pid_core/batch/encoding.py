"""Texts are encoded ahead of their rows, in a process of its own: when it ends, all that the encoder took is free."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection

from ..errors import one_line
from ..upscale.bridge import Bridge
from .children import be_deaf, start_deaf
from .jobs import Job, Options
from .results import RunStoppedError
from .texts import CaptionStore

BLOCK = 1000  # jobs whose texts are encoded together


def with_captions(jobs: Iterator[Job], options: Options, open_bridge: Callable[[], Bridge | None]) -> Iterator[Job]:
    """The jobs, whose texts have captions by the time they come. Raises RunStoppedError where encoding fails."""
    if options.clip is None:
        yield from jobs
        return
    store = CaptionStore(options.out, options.clip_fingerprint)
    while block := list(islice(jobs, BLOCK)):
        texts = store.missing(job.text for job in block if job.text is not None and job.caption is None)
        if texts:
            _encode(store, texts, open_bridge)
        yield from block


def _encode(store: CaptionStore, texts: list[str], open_bridge: Callable[[], Bridge | None]) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_fill, args=(theirs, store, texts, open_bridge), daemon=True)
    start_deaf(process)
    theirs.close()
    try:
        failure = ours.recv()
    except EOFError:
        process.join()
        failure = f"its process died (exit code {process.exitcode})"
    except KeyboardInterrupt:
        process.kill()
        raise
    process.join()
    if failure is not None:
        raise RunStoppedError(f"the texts cannot be encoded: {failure}")


def _fill(
    connection: Connection, store: CaptionStore, texts: list[str], open_bridge: Callable[[], Bridge | None]
) -> None:
    be_deaf()
    try:
        store.fill(texts, open_bridge)
    except (ValueError, OSError, RuntimeError) as error:
        connection.send(one_line(error))
    else:
        connection.send(None)
