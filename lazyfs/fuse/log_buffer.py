"""`LogBuffer`: the last log lines, for ``user.logbuffer`` and the control socket."""

from __future__ import annotations

import logging
from collections import deque

LINES = 128
MAX_LINE = 4096


class LogBuffer(logging.Handler):
    """A handler that keeps the last lines."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=LINES)
        self.setFormatter(logging.Formatter("[%(asctime)s] %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self._lines.appendleft(self.format(record)[:MAX_LINE])

    def lines(self) -> list[str]:
        """The lines, newest first."""
        return list(self._lines)
