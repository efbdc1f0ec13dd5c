"""`LocalCache`: verified objects on the local disk, within a quota, shared by processes."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash
from cachetools import LRUCache

from lazyfs.cas.evictor import Evictor
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.index import CacheEntry, CacheIndex
from lazyfs.cas.layout import CacheLayout, is_at, open_object, try_lock
from lazyfs.cas.prove import proves
from lazyfs.cas.rebuild import open_index, rebuild_index
from lazyfs.cas.state import StateFile
from lazyfs.cas.store import ObjectRef
from lazyfs.cas.writer import CacheWriter, WriterContext, signed64
from lazyfs.config.settings import CacheSettings
from lazyfs.errors import CacheError, CacheFull, ConfigError

log = logging.getLogger("lazyfs.cas")

TOUCH_BATCH = 512
"""Uses remembered before they are written to the index."""

TOUCH_SECONDS = 5.0
"""Seconds after which remembered uses are written at the next use."""

VERIFIED_KEYS = 65536
"""Objects whose checksum this process remembers to have seen right."""

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
        self._settings = settings
        self._verified: LRUCache[str, tuple[int, int, int]] = LRUCache(VERIFIED_KEYS)
        self._touched: dict[str, int] = {}
        self._touch_time = time.monotonic()
        self._lock = threading.Lock()
        self._evictor = self._make_evictor()

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

    def _make_evictor(self) -> Evictor | None:
        if self._index is None:
            return None
        return Evictor(
            self._layout,
            self._index,
            limit=self._settings.limit,
            min_free=self._settings.min_free,
            flush=self._flush_touches,
        )

    def _start(self) -> None:
        if self._index is None:
            return
        stored = self._index.stored_limit()
        if stored is not None:
            self.evictor.limit = None if stored < 0 else stored
        try:
            self.sweep()
            self.evictor.shrink_to_limit()
        except CacheFull as exc:
            log.warning("the cache cannot be tidied up: %s: %s", self._layout.root, exc)

    def rebuild_index(self) -> None:
        """Put the index aside and make a new one from what can be proven.

        Other processes that have the cache open keep the old one until they end.
        """
        before = self.evictor
        self.index.close()
        self._index = rebuild_index(self._layout)
        self._evictor = self._make_evictor()
        self.evictor.limit = before.limit
        self.evictor.relieve = before.relieve

    def close(self) -> None:
        """Write what is remembered and close the index. Handles stay valid."""
        if self._index is not None:
            self._flush_touches()
            with contextlib.suppress(CacheError):
                self.evictor.settle()
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

    @property
    def evictor(self) -> Evictor:
        """What keeps the cache within its quota.

        Raises:
            CacheError: the cache is read-only.
        """
        if self._evictor is None:
            raise CacheError("the cache cannot be written", path=str(self._layout.root))
        return self._evictor

    # --- reading ---------------------------------------------------------------------------

    def get(self, ref: ObjectRef) -> FileHandle | None:
        """The object's content, verified at its first use in this process; None on a miss."""
        path = self._layout.object_path(ref.key)
        try:
            fd = open_object(path)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                raise CacheError(f"cannot open: {exc.strerror}", object=str(ref)) from exc
            return None
        handle = FileHandle(fd, os.fstat(fd).st_size, path)
        try:
            usable = self._is_usable(ref, fd)
        except (OSError, CacheError) as exc:
            log.debug("not served from the cache: %s: %s", ref, exc)
            usable = False
        except BaseException:
            handle.close()
            raise
        if not usable:
            handle.close()
            return None
        self._note_use(ref.key)
        return handle

    def _is_usable(self, ref: ObjectRef, fd: int) -> bool:
        # Where an evictor holds the exclusive lock, or held it before us, the object is on its
        # way out: a miss.
        if not try_lock(fd, exclusive=False):
            return False
        status = os.fstat(fd)
        return status.st_nlink > 0 and stat.S_ISREG(status.st_mode) and self._is_intact(ref, fd)

    def has(self, ref: ObjectRef) -> bool:
        """Whether a file for the object is there; its content is not looked at."""
        return self._layout.object_path(ref.key).exists()

    def _is_intact(self, ref: ObjectRef, fd: int) -> bool:
        status = os.fstat(fd)
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            seen = self._verified.get(ref.key) == stamp
        if seen and ref.size in (None, status.st_size):
            return True
        problem = self._problem(ref, fd, status.st_size)
        if problem is None:
            self._remember(ref.key, status)
            return True
        if problem:
            self._drop_damaged(ref, fd, problem)
        return False

    def _problem(self, ref: ObjectRef, fd: int, size: int) -> str | None:
        """What is wrong with a cached file; empty: it cannot be used; None: nothing."""
        if self._index is None:
            with os.fdopen(os.dup(fd), "rb") as file:
                proven = ref.size in (None, size) and proves(file, ref.digest, ref.codec)
            return None if proven else ""
        entry = self._index.find(ref.key)
        if entry is None:
            return ""
        if size != entry.size:
            return f"{size} bytes where {entry.size} are expected"
        if ref.size not in (None, size):
            return ""  # the object is right, who declared its size is not
        try:
            return None if signed64(checksum_of(fd)) == entry.checksum else "the checksum differs"
        except OSError as exc:
            return f"cannot be read: {exc.strerror}"

    def _drop_damaged(self, ref: ObjectRef, fd: int, problem: str) -> None:
        log.warning("damaged in the cache, fetching again: %s: %s", ref, problem)
        path = self._layout.object_path(ref.key)
        with self.index.exclusive():
            # Another process may have put a good one in its place. Who has the bad one open
            # verified it before it was damaged, or will notice the same.
            if is_at(fd, path):
                path.unlink()
                self.index.heal(ref.key)

    def _remember(self, key: str, status: os.stat_result) -> None:
        with self._lock:
            self._verified[key] = (status.st_ino, status.st_mtime_ns, status.st_size)

    def _note_use(self, key: str) -> None:
        with self._lock:
            self._touched[key] = time.time_ns()
            now = time.monotonic()
            due = len(self._touched) >= TOUCH_BATCH or now - self._touch_time > TOUCH_SECONDS
        if due and self._index is not None:
            self._flush_touches()

    def _flush_touches(self) -> None:
        with self._lock:
            touched, self._touched = self._touched, {}
            self._touch_time = time.monotonic()
        # Forgetting when something was used is better than not to give it.
        with contextlib.suppress(CacheError):
            self.index.touch(touched)

    # --- writing ---------------------------------------------------------------------------

    def create(self, ref: ObjectRef) -> CacheWriter:
        """A writer for the object, to be used as a context manager and committed inside it."""
        return CacheWriter(
            ref, WriterContext(self._layout, self.index, self.evictor, self._remember)
        )

    # --- looking after it ------------------------------------------------------------------

    def sweep(self) -> int:
        """Remove what dead processes left in ``tmp``; the files removed."""
        return self.evictor.sweep()

    def usage(self) -> CacheUsage:
        """How full the cache is. Never waits for the network."""
        if self._index is None:
            return CacheUsage(self._settings.limit, 0, 0, 0, 0, 0, 0)
        numbers = self._index.numbers()
        return CacheUsage(
            self.evictor.limit,
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
        return self.index.find(key) is not None and self.evictor.evict(key)

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
        self.evictor.limit = limit
        self.index.store_limit(-1 if limit is None else limit)
        self.evictor.shrink_to_limit()

    def relieve_with(self, relieve: Callable[[], None] | None) -> None:
        """Have ``relieve`` called when the cache is full of what is open.

        It is to close what this process holds open only in case it is wanted again. It runs in
        the thread that needs the room.
        """
        if self._evictor is not None:
            self._evictor.relieve = relieve

    def cleanups_last_day(self) -> int:
        """How often this process evicted in the last 24 hours; -1 without a quota."""
        if self._evictor is None:
            return -1 if self._settings.limit is None else 0
        return self._evictor.cleanups_last_day()

    def wipe(self) -> int:
        """Drop every object that is not open, pinned or not; the objects dropped."""
        return sum(self.evictor.evict(entry.key) for entry in self.index.entries())

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
