"""Text from outside (names of files and tensors, keys, values, answers of servers), fit for a message."""

from __future__ import annotations

LONGEST = 80  # characters


def printable(value: object, longest: int = LONGEST) -> str:
    """`value` as text on one line that any log, terminal and JSON takes, cut to `longest` characters.

    What does not print (control characters, line ends, terminal codes, halves of characters as they stand for file
    names that are not UTF-8) is written as an escape. Never raises, and reads no more of a long text than it shows.
    """
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception:  # somebody else's __str__
        text = f"<{type(value).__name__}>"
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text[: longest + 1]
    )
    return shown if len(shown) <= longest and len(text) <= longest else shown[: longest - 3] + "..."


def quoted(value: object, longest: int = LONGEST) -> str:
    """As `printable`, for a value of any kind: texts stand in quotes."""
    try:
        return printable(repr(value), longest)
    except Exception:  # nested too deeply, or a number of too many digits
        return f"<{type(value).__name__}>"
