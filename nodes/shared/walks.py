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

# How a picture stands for who asks. OWN: it has it already. TAKEN: another node of the same run has it.
FREE, OWN, TAKEN, DONE, FAILED, UNSAVED = "free", "own", "taken", "done", "failed", "unsaved"


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


Run = tuple[str, str]  # a prompt's id and a node's, which hands out one picture in it
AGAIN: Run = ("", "")  # nobody: the picture is to be tried again
_handed: dict[tuple, dict[str, Run]] = {}  # walk -> name of a picture -> whom it was given to
_unreadable: dict[Path, tuple[Stamp | None, str]] = {}  # a picture as it was when it could not be read, and why


def next_step(node: str, folder: Path, results: Path, entries: Sequence[Entry], skip_done: bool) -> Step:
    """The next picture of a folder, for a node in the run that is under way; the same again if it asks again.

    With nothing left all is forgotten that was handed out, and another call tries again what failed.
    """
    handed = _handed.setdefault((folder, results, skip_done), {})
    there = finished(results, (entry.name for entry in entries)) if skip_done else set()
    now = (get_progress_state().prompt_id, node)
    wanted = OWN if now in handed.values() else FREE  # its own: ComfyUI had no room to keep what the node gave
    step = Step()
    for index, entry in enumerate(entries):
        is_there = entry.name in there
        state, message = _state(handed.get(entry.name), now, is_there, skip_done)
        if state == wanted and step.picture is None:
            step.picture = _read(entry.path, step.skipped)
            if step.picture is not None:
                step.index = index
                handed[entry.name] = now
        elif state == DONE:
            step.done += 1
            if is_there:
                handed.pop(entry.name, None)  # from now on its result alone counts
        elif state == FAILED:
            step.failed.append(f"{printable(entry.name)}: {message}")
        elif state == UNSAVED:
            step.unsaved.append(entry.name)
    if step.picture is None:
        again = {name: AGAIN for name, (prompt, _) in handed.items() if _end_of(prompt)[0] == "execution_error"}
        handed.clear()
        handed |= again  # also where a part of its results is there
    return step


def _state(given: Run | None, now: Run, is_there: bool, skip_done: bool) -> tuple[str, str]:
    """How a picture stands, and an error's text. given: whom it was given to before, now: who asks."""
    if given is None:
        return DONE if is_there else FREE, ""
    if given in (now, AGAIN):
        return OWN if given == now else FREE, ""
    if given[0] == now[0]:
        return TAKEN, ""
    ended, message = _end_of(given[0])
    if ended == "execution_interrupted":
        return FREE, ""
    if ended == "execution_error":
        return FAILED, message
    return DONE if is_there or not skip_done else UNSAVED, ""


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


def _end_of(prompt: str) -> tuple[str, str]:
    """The last of ComfyUI's messages about a run, and the text of its error; nothing where it is not known any more."""
    server = getattr(PromptServer, "instance", None)
    record = {}
    if server is not None:
        record = server.prompt_queue.get_history(prompt_id=prompt, map_function=lambda run: run.get("status"))
    messages = (record.get(prompt) or {}).get("messages") or [("", {})]
    kind, data = messages[-1]
    message = str(data.get("exception_message", "")).strip()
    return kind, printable(message.partition("\n")[0], 300)  # behind it are ComfyUI's tips
