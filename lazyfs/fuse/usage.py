"""What ``statfs`` tells: how full the cache is, and how much of the repository has been opened."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lazyfs.cas.local_cache import CacheUsage, LocalCache
from lazyfs.errors import LazyfsError
from lazyfs.repository.revision import Revision

FRESH_SECONDS = 1.0
"""An answer is given again for so long: some programs ask before each file that they copy."""

_ENTRIES = ("regular", "symlink", "special", "dir")


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    """What ``statfs`` tells."""

    cache: CacheUsage
    entries: int
    """In the whole repository."""
    entries_unseen: int
    """Those in catalogs that are not open, which upstream calls free."""


class UsageMeter:
    """Measures, and remembers the last answer while it is fresh.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[float, FilesystemUsage] | None = None

    @property
    def recent(self) -> FilesystemUsage | None:
        """The last answer if it is fresh."""
        if self._last is None or self._clock() - self._last[0] > FRESH_SECONDS:
            return None
        return self._last[1]

    def measure(self, cache: LocalCache, revision: Revision) -> FilesystemUsage:
        """The usage now. Looks at the local disk, never at the network.

        Raises:
            LazyfsError: the cache's index or the root catalog cannot be read.
        """
        counters = revision.counters()
        entries = sum(counters[name] for name in _ENTRIES)
        unseen = max(0, entries - _open_entries(revision))
        usage = FilesystemUsage(cache.usage(), entries, unseen)
        self._last = (self._clock(), usage)
        return usage


def _open_entries(revision: Revision) -> int:
    entries = 0
    for mountpoint in revision.open_catalogs():
        try:
            counters = revision.tree.lister(mountpoint, fetch=False).counters()
        except LazyfsError:
            # Let go of since, and not cached any more.
            continue
        entries += sum(counters[f"self_{name}"] for name in _ENTRIES)
    return entries
