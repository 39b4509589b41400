"""Which picture of a folder comes next, run after run.

What is done is read from the results. Beside it this process remembers which pictures it has handed out, and asks
ComfyUI's own record how those runs ended: runs that are queued together get a picture each, one that failed comes again
after the others, one that was interrupted comes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfy_execution.progress import get_progress_state
from server import PromptServer

from ...pid_core.batch.folder import Entry, finished
from ...pid_core.images.files import Picture, read_picture
from ...pid_core.log import log
from ...pid_core.printable import printable
from ...pid_core.tensor_files import Stamp

FAILED, INTERRUPTED = "execution_error", "execution_interrupted"  # ComfyUI's words
AGAIN = ""  # in the place of a run: the picture is to be tried again


@dataclass
class Step:
    """What a run is handed: the picture and its place among the entries, None and -1 with nothing left.

    done: how many have their result. skipped: a line for each picture met so far that cannot be read. failed: one for
    each whose run failed. unsaved: names of those whose runs ended well, and left no result.
    """

    index: int = -1
    picture: Picture | None = None
    done: int = 0
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)


_handed: dict[tuple, dict[str, str]] = {}  # walk -> name of a picture -> the run that it was given to
_unreadable: dict[Path, tuple[Stamp | None, str]] = {}  # a picture as it was when it could not be read, and why


def next_step(folder: Path, results: Path, entries: Sequence[Entry], skip_done: bool) -> Step:
    """The next picture of a folder for the run that is under way.

    With nothing left all is forgotten that was handed out, and another call tries again what failed.
    """
    handed = _handed.setdefault((folder, results, skip_done), {})
    there = finished(results, (entry.name for entry in entries)) if skip_done else set()
    step = Step()
    for index, entry in enumerate(entries):
        if entry.name in handed:
            if not _is_free_again(entry.name, handed, there, skip_done, step):
                continue
        elif entry.name in there:
            step.done += 1
            continue
        if step.picture is None:
            step.picture = _read(entry.path, step.skipped)
            if step.picture is not None:
                step.index = index
                handed[entry.name] = get_progress_state().prompt_id
    if step.picture is None:
        again = {name: AGAIN for name, run in handed.items() if _end_of(run)[0] == FAILED}
        handed.clear()
        handed |= again  # also where a part of its results is there
    return step


def _is_free_again(name: str, handed: dict[str, str], there: set[str], skip_done: bool, step: Step) -> bool:
    """Whether a picture that was handed out before may be so again; where not, the step counts it."""
    run = handed[name]
    if run == get_progress_state().prompt_id:  # to another node of this run
        return False
    ended, message = _end_of(run)
    if run == AGAIN or ended == INTERRUPTED:
        del handed[name]
        return True
    if ended == FAILED:
        step.failed.append(f"{printable(name)}: {message}")
    elif not skip_done or name in there:
        step.done += 1
        if skip_done:
            del handed[name]  # from now on its result alone counts
    else:
        step.unsaved.append(name)
    return False


def _read(path: Path, skipped: list[str]) -> Picture | None:
    """A picture; None, and a line, where it cannot be read. The same file is not tried twice."""
    stamp = Stamp.of(path)
    known, line = _unreadable.get(path, (None, ""))
    if stamp is None or stamp != known:
        try:
            return read_picture(path)
        except ValueError as error:
            line = str(error)
            log.warning("PiD Next Picture skips a picture: %s", line)
            _unreadable[path] = stamp, line
    skipped.append(line)
    return None


def _end_of(run: str) -> tuple[str, str]:
    """The last of ComfyUI's messages about a run, and the text of its error; nothing where it is not known any more."""
    server = getattr(PromptServer, "instance", None)
    record = {} if server is None else server.prompt_queue.get_history(prompt_id=run)
    messages = ((record.get(run) or {}).get("status") or {}).get("messages") or [("", {})]
    kind, data = messages[-1]
    return kind, printable(str(data.get("exception_message", "")).strip(), 300)
