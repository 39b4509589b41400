"""How this pack's own exceptions print, and how every exception that leaves it is made fit for a log."""

from __future__ import annotations

from typing import TypeVar

from .printable import printable

Kind = TypeVar("Kind", bound=type[Exception])
LONGEST_LINE = 1500  # characters; a message of ours with every part of it at its longest stays below


def prints_bare(kind: Kind) -> Kind:
    """Class decorator for every exception class here: ComfyUI prints a type with its module, unless it is a builtin.

    The module of a custom node is the path of its folder, which would stand before the line that says what to do.
    """
    kind.__module__ = "builtins"
    return kind


def one_line(text: object) -> str:
    """A whole message on one line that any log, terminal and socket takes."""
    return printable(text, LONGEST_LINE)


def print_on_one_line(error: BaseException) -> None:
    """Change an exception, and those behind it, so that its text is one line that any log takes.

    What stands in a message may come from outside: a file's name that is not UTF-8 raises in a log that is strict,
    and ComfyUI's then takes the thread with it that runs the prompts.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        text = _text(one)
        if text == one_line(text):
            continue
        if isinstance(one, OSError) and one.errno is not None:  # its text is made of these
            one.strerror = printable(one.strerror)
            one.filename = None if one.filename is None else printable(one.filename)
        else:
            one.args = (one_line(text),)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # somebody else's __str__
        return printable(error)
