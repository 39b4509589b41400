"""How this pack's own exceptions print."""

from __future__ import annotations

from typing import TypeVar

Kind = TypeVar("Kind", bound=type[Exception])


def prints_bare(kind: Kind) -> Kind:
    """Class decorator for every exception class here: ComfyUI prints a type with its module, unless it is a builtin.

    The module of a custom node is the path of its folder, which would stand before the line that says what to do.
    """
    kind.__module__ = "builtins"
    return kind
