"""What ComfyUI checks of a value before a run, for the inputs that a node's validate_inputs takes by name.

ComfyUI leaves those to the node altogether; it goes on checking the others itself.
"""

from __future__ import annotations

from comfy_api.latest import io

from ...pid_core.printable import quoted

ABSENT = object()  # default of a link in validate_inputs: not connected. A connected one is None there


def refused(node: type[io.ComfyNode], **values) -> str | None:
    """What is wrong with the first of these values by the node's own schema, in one line; None where nothing is.

    A value of None is left out: the input is connected, and its value not known yet.
    """
    inputs = {entry.id: entry for entry in node.define_schema().inputs}
    for name, value in values.items():
        if value is not None and value is not ABSENT:
            line = _wrong(inputs[name], value)
            if line is not None:
                return line
    return None


def _wrong(entry: io.Input, value) -> str | None:
    options = getattr(entry, "options", None)
    if options is not None and value not in options:
        return (
            f"{entry.id} is {quoted(value)}, which is not in its list: choose another, or press R to refresh the list"
        )
    low, high = getattr(entry, "min", None), getattr(entry, "max", None)
    if (low is not None and value < low) or (high is not None and value > high):
        return f"{entry.id} is {value:g}, but must be from {low:g} to {high:g}"
    return None
