"""The one log of this pack. What is written to it may hold text from outside, so it is made printable on the way."""

from __future__ import annotations

import logging

from .errors import one_line


class _OneLine(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = one_line(record.getMessage()), None
        return True


log = logging.getLogger("pidkit")
log.addFilter(_OneLine())
