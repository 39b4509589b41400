"""What leaves our nodes as text is one line that ComfyUI's log and every browser can take."""

from __future__ import annotations

import functools
import inspect

from comfy_api.latest import io

from ...pid_core.errors import one_line, print_on_one_line

METHODS = ("execute", "validate_inputs", "fingerprint_inputs", "check_lazy_status")


def speaks_plainly(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Class decorator for every node: errors that it raises, and refusals that it returns, print on one line."""
    for name in METHODS:
        if name in vars(node):
            setattr(node, name, classmethod(_plain(vars(node)[name].__func__)))
    return node


def _plain(method):
    @functools.wraps(method)
    def plain(*args, **kwargs):
        try:
            result = method(*args, **kwargs)
        except BaseException as error:
            print_on_one_line(error)
            raise
        return one_line(result) if isinstance(result, str) else result

    # ComfyUI asks which inputs validate_inputs takes. type: ignore: functools.wraps hides that it is a function
    plain.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return plain
