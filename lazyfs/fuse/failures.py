"""`FailureLog`: one line for each failure, and no flood of them."""

from __future__ import annotations

import errno
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from lazyfs.fuse.errnos import errno_of
from lazyfs.fuse.statistics import Statistics

log = logging.getLogger("lazyfs.fuse")

QUIET_SECONDS = 30.0
"""The same failure of the same path is not logged again before."""

REMEMBERED = 1024
"""Failures remembered for that."""


class FailureLog:
    """Counts failed requests and logs them.

    Args:
        statistics: Where they are counted.
        clock: Seconds, monotonic.
        now: Unix time.
    """

    def __init__(
        self,
        statistics: Statistics,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._statistics = statistics
        self._clock = clock
        self._now = now
        self._seen: OrderedDict[tuple[bytes, str], tuple[float, int]] = OrderedDict()

    def report(self, request: str, path: bytes, error: BaseException) -> None:
        """Count a failed request, and log it unless the same was logged a moment ago."""
        self._statistics.errors += 1
        self._statistics.last_error = int(self._now())
        key = (path, type(error).__name__)
        now = self._clock()
        logged, repeated = self._seen.pop(key, (None, 0))
        if logged is not None and now - logged < QUIET_SECONDS:
            self._remember(key, logged, repeated + 1)
            return
        self._remember(key, now, 0)
        name = errno.errorcode.get(errno_of(error), "EIO")
        more = f" ({repeated} more since the last line)" if repeated else ""
        shown = path.decode(errors="backslashreplace") or "/"
        log.error("%s on %s (%s): %s%s", name, shown, request, error, more)

    def _remember(self, key: tuple[bytes, str], logged: float, repeated: int) -> None:
        self._seen[key] = (logged, repeated)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
