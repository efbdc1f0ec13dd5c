"""`ObjectPool`: the objects that a mount has open, each once, however many read it."""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict
from collections.abc import Callable

import trio

from lazyfs.cas.store import ObjectHandle, ObjectRef, ObjectStore
from lazyfs.errors import FormatError
from lazyfs.fuse.blocking import Workers, run_blocking

IDLE_OBJECTS = 64
"""Objects kept open after their last user is gone: what was fetched ahead waits here for its
reader, and a file that is opened again and again costs no thread. Each is one descriptor."""

IDLE_MEMORY = 64 << 20
"""Bytes of objects without a file that are kept open without users."""

SMALL_OBJECT = 128 << 10
"""Bytes up to which an object is read as a whole when it is opened: one thread in place of two."""

HELD_SHARE = 2
"""One of so many descriptors may be held by open files between their reads."""

_RWF_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_NOT_NOW = (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINTR)


class PooledObject:
    """An open object. Whoever acquired it may read until it is released.

    ``key`` is the claim of its `ObjectRef`: who declares another size must not be given this one.
    """

    __slots__ = ("_direct", "handle", "key", "users")

    def __init__(self, key: str, handle: ObjectHandle) -> None:
        self.key = key
        self.handle = handle
        self.users = 0
        # Anonymous memory never waits for a disk, and refuses the flag.
        self._direct = handle.path is None

    def read_now(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` as far as no disk is waited for; the bytes read."""
        flags = 0 if self._direct else _RWF_NOWAIT
        if not self._direct and not flags:
            return 0
        try:
            return os.preadv(self.handle.fileno(), [buffer], offset, flags)
        except OSError as exc:
            if exc.errno in _NOT_NOW:
                return 0
            raise

    def read_all(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` whole; blocks.

        Raises:
            FormatError: the object ends before.
        """
        while buffer:
            got = os.preadv(self.handle.fileno(), [buffer], offset)
            if got == 0:
                raise FormatError(
                    "the object is shorter than declared", object=self.key.partition(" ")[0]
                )
            buffer = buffer[got:]
            offset += got


def descriptors_to_hold() -> int:
    """How many objects may be held open by those who do not read at the moment."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // HELD_SHARE


class ObjectPool:
    """Opens objects and shares them among the files that need them.

    Args:
        store: Where they come from; it closes nothing.
        workers: Where blocking happens: a look into the cache in one lane, and only what is not
            there in another, so that dead servers never keep cached objects from being opened.
        idle: Objects kept open without users.
        may_hold: How many there may be with users before users should not hold them longer than
            they read. Asked each time: the limit of descriptors may be raised.
    """

    def __init__(
        self,
        store: ObjectStore,
        workers: Workers,
        *,
        idle: int = IDLE_OBJECTS,
        may_hold: Callable[[], int] = descriptors_to_hold,
    ) -> None:
        self._store = store
        self._workers = workers
        self._idle_limit = idle
        self._may_hold = may_hold
        self._open: dict[str, PooledObject] = {}
        self._idle: OrderedDict[str, PooledObject] = OrderedDict()
        self._flights: dict[str, _Flight] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_crowded(self) -> bool:
        """Whether descriptors run short, so that nobody should hold an object between reads."""
        return len(self._open) - len(self._idle) > self._may_hold()

    def acquire_now(self, ref: ObjectRef) -> PooledObject | None:
        """The object if it is open already; release it when done."""
        found = self._open.get(ref.claim)
        if found is not None:
            found.users += 1
            self._idle.pop(found.key, None)
        return found

    async def acquire(self, ref: ObjectRef) -> PooledObject:
        """The object, fetched if need be; release it when done. All who ask share one fetch.

        Raises:
            LazyfsError: it cannot be had.
        """
        found = self.acquire_now(ref)
        while found is None:
            flight = self._flights.get(ref.claim)
            if flight is None:
                return await self._fly(ref)
            await flight.landed.wait()
            if flight.error is not None:
                raise flight.error
            # None: whoever flew was cancelled, or was done with the object before we could run.
            found = self.acquire_now(ref)
        return found

    def release(self, pooled: PooledObject) -> None:
        """Done with the object; it stays open for a while if nobody else uses it."""
        pooled.users -= 1
        if pooled.users:
            return
        self._idle[pooled.key] = pooled
        while len(self._idle) > self._idle_limit or self._idle_memory() > IDLE_MEMORY:
            self._close(self._idle.popitem(last=False)[1])

    def _idle_memory(self) -> int:
        """Bytes of the idle objects that are nowhere but in memory: those no cache could take."""
        return sum(o.handle.size for o in self._idle.values() if o.handle.path is None)

    async def _fly(self, ref: ObjectRef) -> PooledObject:
        flight = self._flights[ref.claim] = _Flight()
        try:
            handle = await run_blocking(self._workers.disk, self._peek, ref)
            if handle is None:
                handle = await run_blocking(self._workers.network, self._store.open, ref)
        except Exception as exc:
            flight.error = exc
            raise
        else:
            pooled = self._open[ref.claim] = PooledObject(ref.claim, handle)
            pooled.users = 1
            return pooled
        finally:
            del self._flights[ref.claim]
            flight.landed.set()

    def _peek(self, ref: ObjectRef) -> ObjectHandle | None:
        """The object if it is cached; a small one is in memory afterwards, for `read_now`."""
        handle = self._store.peek(ref)
        if handle is not None and handle.size <= SMALL_OBJECT:
            handle.pread(handle.size, 0)
        return handle

    def _close(self, pooled: PooledObject) -> None:
        del self._open[pooled.key]
        pooled.handle.close()

    def close_idle(self) -> None:
        """Close all objects that nobody uses."""
        while self._idle:
            self._close(self._idle.popitem()[1])


class _Flight:
    """One opening under way, and its outcome."""

    __slots__ = ("error", "landed")

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.error: Exception | None = None
