"""`CacheWriter`: one object on its way into the cache."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import xxhash

from lazyfs.cas.handle import FileHandle
from lazyfs.cas.index import CacheEntry, CacheIndex
from lazyfs.cas.layout import CacheLayout, try_lock
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import CacheError, CacheFull

RESERVATION_STEP = 1 << 20
"""Bytes by which a reservation grows while the size is not declared."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Room(Protocol):
    """Makes room in the cache; implemented by `LocalCache`."""

    def reserve(self, name: str, size: int) -> None:
        """Reserve ``size`` bytes in all under ``name``, evicting as needed.

        Raises:
            QuotaExceeded: nothing that is left may be evicted.
        """

    def free_disk(self, size: int) -> bool:
        """Evict about ``size`` bytes because the disk is full; False if nothing could go."""


@dataclass(frozen=True, slots=True)
class WriterContext:
    """What a writer needs of its cache."""

    layout: CacheLayout
    index: CacheIndex
    room: Room
    on_commit: Callable[[str, os.stat_result], None]


class CacheWriter:
    """A sink that becomes a cached object at `commit`, and leaves nothing behind otherwise.

    The temporary file is locked exclusively while it is written, so that a sweep knows the files
    of dead processes from those of the living.
    """

    def __init__(self, ref: ObjectRef, context: WriterContext) -> None:
        self._ref = ref
        self._context = context
        self._hash = xxhash.xxh3_64()
        self._size = 0
        self._reserved = 0
        self._path: Path | None = None
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            fd, name = tempfile.mkstemp(dir=self._context.layout.temporary)
        except OSError as exc:
            raise _disk_error(exc, self._ref) from exc
        self._fd, self._path = fd, Path(name)
        try:
            try_lock(fd, exclusive=True)
            self._grow(self._ref.size if self._ref.size is not None else RESERVATION_STEP)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._discard()

    def _grow(self, size: int) -> None:
        assert self._path is not None
        self._context.room.reserve(self._path.name, size)
        self._reserved = size

    def restart(self) -> None:
        """Forget everything written."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash.reset()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append content.

        Raises:
            QuotaExceeded: the quota has no room for it.
            CacheFull: the file system has no room, and evicting did not help.
        """
        if self._size + len(data) > self._reserved:
            self._grow(self._size + len(data) + RESERVATION_STEP)
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._write_some(view) :]
        self._size += len(data)

    def _write_some(self, view: memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, view)
            except OSError as exc:
                if exc.errno in _NO_SPACE and self._context.room.free_disk(len(view)):
                    continue
                raise _disk_error(exc, self._ref) from exc

    def commit(self) -> FileHandle:
        """Publish what was written under the object's name; the caller closes the handle."""
        assert self._path is not None
        ref, layout = self._ref, self._context.layout
        target = layout.object_path(ref.key)
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            # The row comes first: a kill between the two leaves a row without a file, which is a
            # plain miss, and never a file that no quota counts.
            self._context.index.insert(
                CacheEntry(
                    ref.key,
                    self._size,
                    signed64(self._hash.intdigest()),
                    ref.kind.value,
                    ref.label,
                    pinned=False,
                    last_used=time.time_ns(),
                ),
                reservation=self._path.name,
            )
            self._reserved = 0
            self._path.rename(target)
            self._path = None
            handle_fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise _disk_error(exc, ref) from exc
        try_lock(handle_fd, exclusive=False)
        self._context.on_commit(ref.key, os.fstat(handle_fd))
        return FileHandle(handle_fd, self._size, target)

    def _discard(self) -> None:
        path, self._path = self._path, None
        if path is not None:
            path.unlink(missing_ok=True)
            with contextlib.suppress(CacheError):
                self._context.index.release([path.name])
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def signed64(value: int) -> int:
    """``value`` as SQLite keeps it: a signed 64-bit number."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _disk_error(exc: OSError, ref: ObjectRef) -> CacheError:
    kind = CacheFull if exc.errno in _NO_SPACE else CacheError
    return kind(f"cannot write to the cache: {exc.strerror}", object=str(ref))
