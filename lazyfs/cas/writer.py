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
from typing import Protocol, Self, TypeVar

import xxhash

from lazyfs.cas.handle import FileHandle
from lazyfs.cas.index import CacheEntry, CacheIndex
from lazyfs.cas.layout import CacheLayout, try_lock
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import CacheError, CacheFull

RESERVATION_STEP = 1 << 20
"""Bytes by which a reservation grows while the size is not declared."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

T = TypeVar("T")


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
    of dead processes from those of the living. Its name begins with the object's key: who dies
    between naming the object and entering it leaves the reservation, which tells what to look at.
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
            self._with_room(self._create)
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

    def _create(self) -> None:
        while True:
            fd, name = tempfile.mkstemp(
                prefix=f"{self._ref.key}.", dir=self._context.layout.temporary
            )
            self._fd, self._path = fd, Path(name)
            # A sweep that meets the file before it is locked takes it for a dead process's.
            if try_lock(fd, exclusive=True) and os.fstat(fd).st_nlink:
                return
            self._remove()

    def _grow(self, size: int) -> None:
        assert self._path is not None
        name = self._path.name
        self._with_room(lambda: self._context.room.reserve(name, size))
        self._reserved = size

    def _with_room(self, action: Callable[[], T]) -> T:
        """Do it; where the disk is full, evict and do it again for as long as anything goes."""
        while True:
            error: CacheError
            try:
                return action()
            except CacheFull as exc:
                error = exc
            except OSError as exc:
                error = _disk_error(exc, self._ref)
            if not isinstance(error, CacheFull) or not self._context.room.free_disk(0):
                raise error

    def restart(self) -> None:
        """Forget everything written."""
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        except OSError as exc:
            raise _disk_error(exc, self._ref) from exc
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
        target = self._context.layout.object_path(self._ref.key)
        handle = self._with_room(lambda: FileHandle(self._open_shared(), self._size, target))
        try:
            self._with_room(lambda: self._publish(target))
            self._context.on_commit(self._ref.key, os.fstat(handle.fileno()))
        except BaseException:
            handle.close()
            raise
        return handle

    def _open_shared(self) -> int:
        """A descriptor for reading that holds a shared lock before the object has its name."""
        assert self._path is not None
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        # A lock belongs to an opening of the file: our exclusive one stands in the other's way.
        if try_lock(self._fd, exclusive=False) and try_lock(fd, exclusive=False):
            return fd
        os.close(fd)
        raise CacheError("cannot lock an object in the cache", object=str(self._ref))

    def _publish(self, target: Path) -> None:
        assert self._path is not None
        entry = CacheEntry(
            self._ref.key,
            self._size,
            signed64(self._hash.intdigest()),
            self._ref.kind.value,
            self._ref.label,
            pinned=False,
            last_used=time.time_ns(),
        )
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        renamed = False
        try:
            with self._context.index.exclusive():
                self._context.index.insert(entry, reservation=self._path.name)
                self._path.rename(target)
                renamed = True
        except BaseException:
            if renamed:
                # Named but not entered: back, so that no file is there that no quota counts.
                target.rename(self._path)
            raise
        self._path = None

    def _discard(self) -> None:
        name = self._path.name if self._path is not None else None
        self._remove()
        if name is not None:
            with contextlib.suppress(CacheError):
                self._context.index.release([name])

    def _remove(self) -> None:
        path, self._path = self._path, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def signed64(value: int) -> int:
    """``value`` as SQLite keeps it: a signed 64-bit number."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _disk_error(exc: OSError, ref: ObjectRef) -> CacheError:
    kind = CacheFull if exc.errno in _NO_SPACE else CacheError
    return kind(f"cannot write to the cache: {exc.strerror}", object=str(ref))
