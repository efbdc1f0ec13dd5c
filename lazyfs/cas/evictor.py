"""`Evictor`: keeps a cache within its quota and off the last bytes of its disk."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

from lazyfs.cas.index import CacheIndex
from lazyfs.cas.layout import CacheLayout, remove_if_unused
from lazyfs.cas.rebuild import parse_key
from lazyfs.errors import CacheFull, FormatError, QuotaExceeded

LOW_WATER = 0.9
"""An eviction goes down to this share of the quota, so that not every insert evicts."""

MAX_CLEANUPS = 10_000
"""Evictions whose time is remembered."""

MIN_FREED = 1 << 20
"""Fewest bytes that are evicted when the disk is full, so that not every write evicts."""


class Evictor:
    """Removes the least recently used. Pinned objects and objects open in any process stay.

    Args:
        layout: The cache's directory.
        index: The cache's index.
        limit: Quota in bytes; None: no quota.
        min_free: Bytes of the file system that are left free.
        flush: Writes the uses that are remembered to the index.
    """

    def __init__(
        self,
        layout: CacheLayout,
        index: CacheIndex,
        *,
        limit: int | None,
        min_free: int,
        flush: Callable[[], None],
    ) -> None:
        self.limit = limit
        self.relieve: Callable[[], None] | None = None
        """Asks the process to close what it holds open only in case it is wanted again; called
        when nothing else may go."""
        self._owed: set[str] = set()
        self._layout = layout
        self._index = index
        self._min_free = min_free
        self._flush = flush
        self._lock = threading.Lock()
        self._cleanups: deque[float] = deque(maxlen=MAX_CLEANUPS)

    def reserve(self, name: str, size: int) -> None:
        """Reserve ``size`` bytes in all under ``name``, evicting as needed.

        Raises:
            QuotaExceeded: nothing that is left may be evicted.
            CacheFull: the disk would have less free than it must, and nothing may be evicted.
        """
        limit = self.limit
        if limit is not None and size > limit:
            raise QuotaExceeded(
                f"an object of {size} bytes does not fit a quota of {limit}",
                hint="raise it with 'lazyfs cache limit'",
            )
        self._keep_disk_free(name, size)
        swept = False
        while not self._index.reserve(name, size, limit):
            assert limit is not None
            goal = limit - size + self._index.reserved(name)
            if self._make_room(max(0, min(int(limit * LOW_WATER), goal))):
                continue
            if swept:
                raise QuotaExceeded(
                    f"no room for {size} bytes within a quota of {limit}: all is pinned or open",
                    hint="raise it with 'lazyfs cache limit', or unpin",
                )
            self.sweep()
            swept = True

    def _make_room(self, target: int) -> bool:
        """Go down to ``target`` bytes; False if more is used and nothing could go."""
        self._flush()
        with self._lock:
            # Another thread may have made room while we waited.
            excess = self._index.gauge() - target
            return excess <= 0 or self._evict_bytes(excess) > 0

    def _keep_disk_free(self, name: str, size: int) -> None:
        if not self._min_free:
            return
        status = os.statvfs(self._layout.root)
        try:
            written = (self._layout.temporary / name).stat().st_size
        except FileNotFoundError:
            written = 0
        missing = size - written + self._min_free - status.f_bavail * status.f_frsize
        if missing > 0 and not self.free_disk(missing):
            raise CacheFull(
                f"less than {self._min_free} bytes would be left free on the disk",
                path=str(self._layout.root),
                hint="free space on the disk, or lower LAZYFS_CACHE_MIN_FREE",
            )

    def free_disk(self, size: int) -> bool:
        """Evict about ``size`` bytes because the disk is full; False if nothing could go."""
        self._flush()
        with self._lock:
            return self._evict_bytes(max(size, MIN_FREED)) > 0

    def shrink(self, target: int) -> int:
        """Evict until ``target`` bytes are left; the bytes freed."""
        self._flush()
        with self._lock:
            return self._evict_bytes(self._index.gauge() - target)

    def shrink_to_limit(self) -> None:
        """Evict if more than the quota is used."""
        if self.limit is not None and self._index.gauge() > self.limit:
            self.shrink(int(self.limit * LOW_WATER))

    def _evict_bytes(self, excess: int) -> int:
        if excess <= 0:
            return 0
        self.settle()
        freed = self._evict_oldest(excess)
        if not freed and self.relieve is not None:
            self.relieve()
            freed = self._evict_oldest(excess)
        if freed:
            self._cleanups.append(time.time())
        return freed

    def _evict_oldest(self, excess: int) -> int:
        freed = 0
        for entry in self._index.victims():
            if freed >= excess:
                break
            if self.evict(entry.key):
                freed += entry.size
        return freed

    def evict(self, key: str) -> bool:
        """Drop one object, pinned or not; False if it is in use."""
        path = self._layout.object_path(key)
        existed = path.exists()
        try:
            with self._index.exclusive():
                if not remove_if_unused(path):
                    return False
                self._index.remove(key, counter="evictions")
        except CacheFull:
            self._owed.add(key)
            return existed and not path.exists()
        return True

    def settle(self) -> None:
        """Drop the rows of objects that went while the disk had no room to write that down."""
        while self._owed:
            key = self._owed.pop()
            try:
                with self._index.exclusive():
                    if not self._layout.object_path(key).exists():
                        self._index.remove(key, counter="evictions")
            except CacheFull:
                self._owed.add(key)
                return

    def cleanups_last_day(self) -> int:
        """How often this process evicted in the last 24 hours; -1 without a quota."""
        if self.limit is None:
            return -1
        return sum(when > time.time() - 86400 for when in self._cleanups)

    def sweep(self) -> int:
        """Remove what dead processes left in ``tmp``; the files removed."""
        # The names come first: who reserves has a file already, so a name whose file is not seen
        # afterwards belongs to nobody.
        names = self._index.reservations()
        removed = sum(remove_if_unused(path) for path in self._layout.temporary_files())
        alive = {path.name for path in self._layout.temporary_files()}
        dead = [name for name in names if name not in alive]
        for name in dead:
            self._drop_uncounted(name)
        if dead:
            self._index.release(dead)
        return removed

    def _drop_uncounted(self, name: str) -> None:
        """Remove the object that a process named before it died, but could not enter."""
        key = name.rpartition(".")[0]
        try:
            parse_key(key)
        except FormatError:
            return
        with self._index.exclusive():
            if self._index.find(key) is None:
                remove_if_unused(self._layout.object_path(key))
