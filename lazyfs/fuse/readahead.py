"""When and what to fetch ahead of a reader: a policy without I/O."""

from __future__ import annotations

NEAR_BYTES = 4 << 20
"""The kernel's own read-ahead asks for pieces out of order; a jump within this is none."""

PATIENCE = 2
"""Sequential reads before anything is fetched ahead; a first read of the start counts for one."""


class SequentialReader:
    """Watches the reads of one open file.

    Args:
        ahead: Extents to fetch ahead of a sequential reader; 0: never.
    """

    __slots__ = ("_ahead", "_end", "_planned", "_run")

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._end = 0
        self._run = 0
        self._planned = 0
        """Extents below this were planned for already."""

    def note(self, offset: int, size: int) -> None:
        """A read took place."""
        if self._end - NEAR_BYTES <= offset <= self._end + NEAR_BYTES:
            self._run += 1
        else:
            self._run = 0
            self._planned = 0
        self._end = max(self._end, offset + size) if self._run else offset + size

    def plan(self, last: int, count: int) -> range:
        """The extents to fetch now, when ``last`` of ``count`` was read from; each once."""
        if not self._ahead or self._run < PATIENCE:
            return range(0)
        first = max(last + 1, self._planned)
        end = min(last + 1 + self._ahead, count)
        if first >= end:
            return range(0)
        self._planned = end
        return range(first, end)
