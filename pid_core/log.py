"""The one log of this pack: `log.info("... %s", value)`. Lines are told apart from others by the prefix put here.

What is written may hold text from outside, so it is made printable on the way.
"""

from __future__ import annotations

import logging

from .errors import one_line

PREFIX = "PiD: "


class _OneLine(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        # another copy of this package in the same process filters the same log
        record.msg, record.args = PREFIX + one_line(record.getMessage()).removeprefix(PREFIX), None
        return True


log = logging.getLogger("pidkit")
log.addFilter(_OneLine())
