"""`LocalCache`: verified objects on the local disk, within a quota, shared by processes."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash
from cachetools import LRUCache

from lazyfs.cas.handle import FileHandle
from lazyfs.cas.index import CacheEntry, CacheIndex
from lazyfs.cas.layout import CacheLayout, remove_if_unused, try_lock
from lazyfs.cas.rebuild import open_index
from lazyfs.cas.state import StateFile
from lazyfs.cas.store import ObjectRef
from lazyfs.cas.writer import CacheWriter, WriterContext, signed64
from lazyfs.config.settings import CacheSettings
from lazyfs.errors import CacheError, ConfigError, QuotaExceeded

log = logging.getLogger("lazyfs.cas")

LOW_WATER = 0.9
"""An eviction goes down to this share of the quota, so that not every insert evicts."""

TOUCH_BATCH = 512
"""Uses remembered before they are written to the index."""

TOUCH_SECONDS = 5.0
"""Seconds after which remembered uses are written at the next use."""

VERIFIED_KEYS = 65536
"""Objects whose checksum this process remembers to have seen right."""

MAX_CLEANUPS = 10_000
"""Evictions whose time is remembered."""

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """How full a cache is; sizes in bytes."""

    limit: int | None
    used: int
    temporary: int
    """Reserved for objects that are being written."""
    pinned: int
    objects: int
    evictions: int
    healed: int
    """Objects found damaged and dropped."""


class LocalCache:
    """The cache in one directory. Safe to use from many threads; the directory from many processes.

    Open it with `LocalCache.open`; close it when done.
    """

    def __init__(
        self, layout: CacheLayout, index: CacheIndex | None, settings: CacheSettings
    ) -> None:
        self._layout = layout
        self._index = index
        self._limit = settings.limit
        self._min_free = settings.min_free
        self._verified: LRUCache[str, tuple[int, int, int]] = LRUCache(VERIFIED_KEYS)
        self._touched: set[str] = set()
        self._touch_time = time.monotonic()
        self._lock = threading.Lock()
        self._evicting = threading.Lock()
        self._cleanups: deque[float] = deque(maxlen=MAX_CLEANUPS)

    @classmethod
    def open(cls, settings: CacheSettings) -> Self:
        """The cache in ``settings.directory``, created if need be.

        A directory that cannot be written serves what it holds and takes nothing new.

        Raises:
            CacheError: the directory cannot be made or has another format.
            ConfigError: the quota makes no sense.
        """
        if settings.limit is not None and settings.limit <= 0:
            raise ConfigError("the cache quota must be positive", hint="use -1 for no quota")
        layout = CacheLayout(Path(settings.directory))
        writable = layout.prepare()
        cache = cls(layout, open_index(layout) if writable else None, settings)
        cache._start()
        return cache

    def _start(self) -> None:
        if self._index is None:
            return
        stored = self._index.stored_limit()
        if stored is not None:
            self._limit = None if stored < 0 else stored
        self.sweep()
        if self._limit is not None and self._index.gauge() > self._limit:
            self.shrink(int(self._limit * LOW_WATER))

    def close(self) -> None:
        """Write what is remembered and close the index. Handles stay valid."""
        if self._index is not None:
            self._flush_touches()
            self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """Where the cache lies."""
        return self._layout.root

    @property
    def layout(self) -> CacheLayout:
        """The directory's structure."""
        return self._layout

    @property
    def writable(self) -> bool:
        """Whether new objects can be kept."""
        return self._index is not None

    @property
    def index(self) -> CacheIndex:
        """The index.

        Raises:
            CacheError: the cache is read-only.
        """
        if self._index is None:
            raise CacheError("the cache cannot be written", path=str(self._layout.root))
        return self._index

    # --- reading ---------------------------------------------------------------------------

    def get(self, ref: ObjectRef) -> FileHandle | None:
        """The object's content, verified at its first use in this process; None on a miss."""
        path = self._layout.object_path(ref.key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                raise CacheError(f"cannot open: {exc.strerror}", object=str(ref)) from exc
            return None
        try:
            # Where an evictor holds the exclusive lock the object is on its way out: a miss.
            if not try_lock(fd, exclusive=False) or not self._is_intact(ref, fd):
                os.close(fd)
                return None
            size = os.fstat(fd).st_size
        except BaseException:
            os.close(fd)
            raise
        self._note_use(ref.key)
        return FileHandle(fd, size, path)

    def has(self, ref: ObjectRef) -> bool:
        """Whether a file for the object is there; its content is not looked at."""
        return self._layout.object_path(ref.key).exists()

    def _is_intact(self, ref: ObjectRef, fd: int) -> bool:
        status = os.fstat(fd)
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            if self._verified.get(ref.key) == stamp:
                return True
        problem = self._problem(ref, fd, status.st_size)
        if problem is None:
            self._remember(ref.key, status)
            return True
        if problem:
            self._drop_damaged(ref, problem)
        return False

    def _problem(self, ref: ObjectRef, fd: int, size: int) -> str | None:
        """What is wrong with a cached file; empty: it is merely unknown; None: nothing."""
        if self._index is None:
            return None if ref.size in (None, size) else "wrong size"
        entry = self._index.find(ref.key)
        if entry is None:
            return ""
        if size != entry.size or ref.size not in (None, size):
            return f"{size} bytes where {entry.size} are expected"
        if signed64(checksum_of(fd)) != entry.checksum:
            return "the checksum differs"
        return None

    def _drop_damaged(self, ref: ObjectRef, problem: str) -> None:
        log.warning("damaged in the cache, fetching again: %s: %s", ref, problem)
        # Others may have the file open; they verified it, or will notice the same damage.
        self._layout.object_path(ref.key).unlink(missing_ok=True)
        self.index.remove(ref.key, counter="healed")

    def _remember(self, key: str, status: os.stat_result) -> None:
        with self._lock:
            self._verified[key] = (status.st_ino, status.st_mtime_ns, status.st_size)

    def _note_use(self, key: str) -> None:
        with self._lock:
            self._touched.add(key)
            now = time.monotonic()
            due = len(self._touched) >= TOUCH_BATCH or now - self._touch_time > TOUCH_SECONDS
        if due and self._index is not None:
            self._flush_touches()

    def _flush_touches(self) -> None:
        with self._lock:
            keys, self._touched = self._touched, set()
            self._touch_time = time.monotonic()
        if keys:
            self.index.touch(keys)

    # --- writing ---------------------------------------------------------------------------

    def create(self, ref: ObjectRef) -> CacheWriter:
        """A writer for the object, to be used as a context manager and committed inside it."""
        return CacheWriter(ref, WriterContext(self._layout, self.index, self, self._remember))

    def reserve(self, name: str, size: int) -> None:
        """Reserve ``size`` bytes in all under ``name``, evicting as needed.

        Raises:
            QuotaExceeded: nothing that is left may be evicted.
        """
        limit = self._limit
        if limit is not None and size > limit:
            raise QuotaExceeded(
                f"an object of {size} bytes does not fit a quota of {limit}",
                hint="raise it with 'lazyfs cache limit'",
            )
        self._keep_disk_free(size)
        while not self.index.reserve(name, size, limit):
            assert limit is not None
            if not self.shrink(max(0, min(int(limit * LOW_WATER), limit - size))):
                raise QuotaExceeded(
                    f"no room for {size} bytes within a quota of {limit}: all is pinned or open",
                    hint="raise it with 'lazyfs cache limit', or unpin",
                )

    def _keep_disk_free(self, size: int) -> None:
        if not self._min_free:
            return
        status = os.statvfs(self._layout.root)
        missing = size + self._min_free - status.f_bavail * status.f_frsize
        if missing > 0:
            self.free_disk(missing)

    def free_disk(self, size: int) -> bool:
        """Evict about ``size`` bytes because the disk is full; False if nothing could go."""
        used = self.index.numbers()["used"]
        return self.shrink(max(0, used - max(size, _PIECE))) > 0

    def shrink(self, target: int) -> int:
        """Evict the least recently used until ``target`` bytes are left; the bytes freed.

        Pinned objects and objects open in any process stay.
        """
        self._flush_touches()
        self._cleanups.append(time.time())
        freed = 0
        with self._evicting:
            excess = self.index.gauge() - target
            for entry in self.index.victims() if excess > 0 else ():
                if freed >= excess:
                    break
                if self._evict(entry.key):
                    freed += entry.size
        return freed

    def cleanups_last_day(self) -> int:
        """How often this process evicted in the last 24 hours; -1 without a quota."""
        if self._limit is None:
            return -1
        return sum(when > time.time() - 86400 for when in self._cleanups)

    def _evict(self, key: str) -> bool:
        if not remove_if_unused(self._layout.object_path(key)):
            return False
        self.index.remove(key, counter="evictions")
        return True

    # --- looking after it ------------------------------------------------------------------

    def sweep(self) -> int:
        """Remove what dead processes left in ``tmp``; the files removed."""
        removed = 0
        for path in self._layout.temporary.iterdir():
            if remove_if_unused(path):
                removed += 1
        alive = {path.name for path in self._layout.temporary.iterdir()}
        self.index.release(name for name in self.index.reservations() if name not in alive)
        return removed

    def usage(self) -> CacheUsage:
        """How full the cache is. Never waits for the network."""
        if self._index is None:
            return CacheUsage(self._limit, 0, 0, 0, 0, 0, 0)
        numbers = self._index.numbers()
        return CacheUsage(
            self._limit,
            numbers["used"],
            numbers["reserved"],
            numbers["pinned"],
            numbers["objects"],
            numbers["evictions"],
            numbers["healed"],
        )

    def entries(self) -> Iterator[CacheEntry]:
        """All objects, most recently used first."""
        self._flush_touches()
        yield from self.index.entries()

    def evict(self, key: str) -> bool:
        """Drop one object; False if it is in use or not there."""
        return self.index.find(key) is not None and self._evict(key)

    def pin(self, key: str) -> bool:
        """Keep an object until it is unpinned; False if it is not there."""
        return self.index.pin(key, pinned=True)

    def unpin(self, key: str) -> bool:
        """Let an object go when its time comes; False if it is not there."""
        return self.index.pin(key, pinned=False)

    def set_limit(self, limit: int | None) -> None:
        """Set the quota for this and later processes; None: no quota. Shrinks at once.

        Raises:
            ConfigError: the quota is not positive.
        """
        if limit is not None and limit <= 0:
            raise ConfigError("the cache quota must be positive", hint="use -1 for no quota")
        self._limit = limit
        self.index.store_limit(-1 if limit is None else limit)
        if limit is not None and self.index.gauge() > limit:
            self.shrink(int(limit * LOW_WATER))

    def wipe(self) -> int:
        """Drop every object that is not open, pinned or not; the objects dropped."""
        return sum(self._evict(entry.key) for entry in self.index.entries())

    def state(self, name: str) -> StateFile:
        """The small document ``name``, e.g. ``data.example.org/manifest``.

        Raises:
            CacheError: the name would leave the folder.
        """
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise CacheError(f"not a name for a state file: {name!r}")
        return StateFile(self._layout.state.joinpath(*parts), writable=self.writable)


def checksum_of(fd: int) -> int:
    """xxh3-64 of a whole open file, read in pieces of 1 MiB."""
    digest = xxhash.xxh3_64()
    offset = 0
    while piece := os.pread(fd, _PIECE, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.intdigest()
