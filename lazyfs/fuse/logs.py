"""Where a mount's log lines go."""

from __future__ import annotations

import logging
import logging.handlers
import os
from dataclasses import dataclass
from pathlib import Path

from lazyfs.errors import ConfigError

SYSLOG_SOCKET = Path("/dev/log")
LOG_FILE_BYTES = 512_000
"""A log file is rotated at that size (upstream: 500 KiB)."""

_LINE = "%(asctime)s %(levelname)s ({fqrn}) %(message)s"
_SYSLOG_LINE = "({fqrn}) %(message)s"
"""syslog adds time and level by itself."""


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where lines go: ``file`` if given, standard error in the foreground, else syslog."""

    file: Path | None = None
    foreground: bool = False
    verbose: bool = False


def set_up_logging(fqrn: str, target: LogTarget) -> None:
    """Send the lines of all of lazyfs to ``target``, each with the repository's name.

    Where there is no syslog the last lines are still kept in memory, for ``lazyfs ctl DIR log``.

    Raises:
        ConfigError: the file cannot be written.
    """
    handler, line = _handler(target)
    handler.setFormatter(logging.Formatter(line.format(fqrn=fqrn)))
    logger = logging.getLogger("lazyfs")
    logger.setLevel(logging.DEBUG if target.verbose else logging.INFO)
    logger.propagate = False
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)


def _handler(target: LogTarget) -> tuple[logging.Handler, str]:
    if target.file is not None:
        return _file_handler(target.file), _LINE
    if target.foreground:
        return logging.StreamHandler(), _LINE
    return _syslog_handler(), _SYSLOG_LINE


def _file_handler(file: Path) -> logging.Handler:
    try:
        return logging.handlers.RotatingFileHandler(file, maxBytes=LOG_FILE_BYTES, backupCount=1)
    except OSError as exc:
        raise ConfigError(f"cannot write the log: {exc.strerror}", path=str(file)) from exc


class _SyslogHandler(logging.handlers.SysLogHandler):
    """Lines are dropped while there is no syslog; each tries to connect again."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: there is nobody to tell."""


def _syslog_handler() -> logging.Handler:
    handler = _SyslogHandler(str(SYSLOG_SOCKET))
    handler.ident = f"lazyfs[{os.getpid()}]: "
    return handler
