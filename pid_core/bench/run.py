"""Part after part: one that fails or does not fit is one line, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from ..images.files import Picture
from ..progress import duration
from ..windows.plan import NoPlanError, TooLittleMemoryError
from ..windows.run import is_out_of_memory
from . import beside_core, nan_check, precision, seams, steps
from .beside_core import MakeCore
from .estimate import Estimate
from .measure import free
from .private import Scrub
from .report import Report
from .rows import FAILED, MEASURED, NO_MEMORY, SKIPPED, Part, Row
from .subject import Subject

Say = Callable[[str], None]
NO_CORE = "no ComfyUI was found: name its folder with --comfyui PATH"
CROP = {"cpu": 256, "else": 1024}
CORE_SIDE = {"cpu": 512, "else": 2048}


class Settings(NamedTuple):
    """quick: fewer and smaller parts. sizes: sides of the canvases; None: chosen by how long they take.

    make_core: see `beside_core`; None: no_core says why. picture: that seams are looked for in.
    """

    quick: bool = False
    sizes: Sequence[int] | None = None
    make_core: MakeCore | None = None
    no_core: str = NO_CORE
    picture: Picture | None = None


def plan_parts(subject: Subject, settings: Settings, estimate: Estimate) -> list[Part]:
    """What will be measured, in order, with about how long each takes."""
    cpu, quick = subject.device.type == "cpu", settings.quick
    kind = "cpu" if cpu else "else"
    best = subject.config.steps
    count = 2 if cpu or quick else max(best, 2)
    sizes = list(settings.sizes or estimate.choose_sizes(count, quick))
    smallest = min(sizes)
    crop = min(CROP[kind] // (2 if quick and not cpu else 1), smallest)
    beside = min(CORE_SIDE[kind] // (2 if quick else 1), max(sizes))
    turns = 1 if cpu else 3
    parts = [
        Part(
            steps.KEY,
            steps.title_of(side),
            partial(steps.measure_steps, subject, side, count, warm_up=not cpu),
            estimate.seconds(side, count + (not cpu)),
        )
        for side in sorted(sizes)
    ]
    dtype = "bfloat16" if subject.net.compute_dtype == torch.float32 else subject.dtype
    parts.append(
        Part(
            precision.KEY,
            precision.title_of(dtype),
            lambda: precision.measure_precision(subject, crop, best),
            estimate.seconds(crop, 4 * best),
        )
    )
    parts.append(_core_part(subject, settings, beside, turns, estimate))
    if settings.picture is not None:
        picture = settings.picture
        parts.append(
            Part(
                seams.KEY,
                seams.TITLE,
                lambda: seams.measure_borders(subject, picture, smallest, best, frame_too=not quick),
                0.0 if seams.why_not(subject) else estimate.seconds(smallest, best * (1.5 if quick else 2.5)),
            )
        )
    parts.append(
        Part(
            nan_check.KEY, nan_check.TITLE, lambda: nan_check.check_nan(subject, crop, best), estimate.seconds(crop, 2)
        )
    )
    return parts


def _core_part(subject: Subject, settings: Settings, side: int, turns: int, estimate: Estimate) -> Part:
    title, make = beside_core.title_of(side), settings.make_core
    if make is None:
        return Part(beside_core.KEY, title, lambda: Row(beside_core.KEY, title, settings.no_core, SKIPPED), seconds=0.0)
    return Part(
        beside_core.KEY,
        title,
        lambda: beside_core.measure_beside_core(subject, make, side, turns),
        estimate.seconds(side, 4 * (turns + 2)),
    )


def run_parts(parts: Sequence[Part], add: Callable[[Row], None], device: torch.device, scrub: Scrub, say: Say) -> None:
    """add: is given every row as soon as it is there."""
    for number, part in enumerate(parts, start=1):
        about = "" if not part.seconds else f", about {duration(part.seconds)}"
        say(f"{number} of {len(parts)}: {part.title}{about}")
        row = _measured(part, scrub)
        free(device)
        add(row)
        say(f"    {row.text if row.status == MEASURED else f'{row.status}: {row.text}'}")


def _measured(part: Part, scrub: Scrub) -> Row:
    try:
        row = part.run()
        return replace(row, text=scrub(row.text)) if row.status != MEASURED else row
    except (NoPlanError, TooLittleMemoryError) as error:
        status, why = NO_MEMORY, str(error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        status, why = NO_MEMORY, _first_line(error)
    except Exception as error:  # whatever it is, the other rows are worth having
        status = NO_MEMORY if is_out_of_memory(error) else FAILED
        why = _first_line(error)
    return Row(part.key, part.title, scrub(why), status)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def bench(subject: Subject, settings: Settings, report: Report, written: Callable[[], None], scrub: Scrub, say: Say):
    """All parts into a report that may have rows already. written: called whenever there is more of it."""
    estimate = Estimate.of(subject)
    parts = plan_parts(subject, settings, estimate)
    total = sum(part.seconds or 0 for part in parts)
    say(f"{len(parts)} parts, about {duration(total)} in all, if times grow from a small call's as the work does")

    def add(row: Row) -> None:
        report.rows.append(row)
        written()

    run_parts(parts, add, subject.device, scrub, say)
    report.complete = True
    written()
