"""Where a mount's log lines go."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from lazyfs.errors import ConfigError

SYSLOG_SOCKET = Path("/dev/log")
LOG_FILE_BYTES = 512_000
"""A log file is rotated at that size (upstream: 500 KiB)."""

_LINE = "%(asctime)s %(levelname)s ({fqrn}) %(message)s"


def set_up_logging(fqrn: str, *, file: Path | None, foreground: bool, verbose: bool) -> None:
    """Send lines to ``file``, in the foreground to standard error, else to syslog.

    Raises:
        ConfigError: the file cannot be written.
    """
    handler: logging.Handler
    if file is not None:
        try:
            handler = logging.handlers.RotatingFileHandler(
                file, maxBytes=LOG_FILE_BYTES, backupCount=1
            )
        except OSError as exc:
            raise ConfigError(f"cannot write the log: {exc.strerror}", path=str(file)) from exc
    elif foreground:
        handler = logging.StreamHandler()
    elif SYSLOG_SOCKET.exists():
        handler = logging.handlers.SysLogHandler(str(SYSLOG_SOCKET))
        handler.ident = "lazyfs: "
    else:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter(_LINE.format(fqrn=fqrn)))
    logger = logging.getLogger("lazyfs")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.addHandler(handler)
