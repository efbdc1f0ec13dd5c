"""`CachedStore`: a local cache before an origin."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

from lazyfs.cas.anonymous import AnonymousSink
from lazyfs.cas.flight import SingleFlight
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cas.origin import Origin
from lazyfs.cas.store import ObjectRef
from lazyfs.cas.verify import NullSink, ObjectReceiver
from lazyfs.errors import CacheError

log = logging.getLogger("lazyfs.cas")

UNCACHED_BYTES = 64 << 20
"""Bytes of one object that may be served from memory when the disk has no room for it."""


@dataclass(frozen=True, slots=True)
class StoreCounters:
    """What a store has done since it was made."""

    hits: int = 0
    misses: int = 0
    stored_bytes: int = 0
    """Bytes received for objects, as stored."""
    content_bytes: int = 0
    """Bytes of content these gave."""
    uncached: int = 0
    """Objects served from memory because the cache could not take them."""


class CachedStore:
    """Gives objects from the cache, and fetches each missing one once, whoever asks.

    Args:
        cache: Where content is kept. The store does not close it.
        origin: Where content comes from.
    """

    def __init__(self, cache: LocalCache, origin: Origin) -> None:
        self._cache = cache
        self._origin = origin
        self._flights: SingleFlight[FileHandle] = SingleFlight()
        self._lock = threading.Lock()
        self._counters = StoreCounters()
        self._warned_uncached = False

    @property
    def counters(self) -> StoreCounters:
        """A snapshot of the counters."""
        return self._counters

    def peek(self, ref: ObjectRef) -> FileHandle | None:
        """The content if the cache has it; counted as a hit if so."""
        handle = self._cache.get(ref)
        if handle is not None:
            self._count(hits=1)
        return handle

    def has(self, ref: ObjectRef) -> bool:
        """Whether the cache has a file for it."""
        return self._cache.has(ref)

    def open(self, ref: ObjectRef) -> FileHandle:
        """The object's content; blocks while it is fetched. The caller closes the handle."""
        handle = self.peek(ref)
        if handle is not None:
            return handle
        # Each waiter takes its own descriptor; the flight's is closed by its last reference.
        return self._flights.do(ref.claim, lambda: self._load(ref)).duplicate()

    def verify(self, ref: ObjectRef) -> None:
        """Read the object from its origin, keeping nothing, and verify it.

        Raises:
            LazyfsError: it cannot be had, or is not what its name says.
        """
        self._origin.fetch(ref, ObjectReceiver(ref, NullSink()))

    def _load(self, ref: ObjectRef) -> FileHandle:
        # Another flight may have ended between our look and the start of this one.
        handle = self._cache.get(ref)
        if handle is not None:
            return handle
        self._count(misses=1)
        if not self._cache.writable:
            return self._load_uncached(ref, CacheError("the cache cannot be written"))
        try:
            return self._load_cached(ref)
        except CacheError as exc:
            return self._load_uncached(ref, exc)

    def _load_cached(self, ref: ObjectRef) -> FileHandle:
        with self._cache.create(ref) as writer:
            receiver = ObjectReceiver(ref, writer)
            self._origin.fetch(ref, receiver)
            self._count(stored_bytes=receiver.stored, content_bytes=receiver.content)
            return writer.commit()

    def _load_uncached(self, ref: ObjectRef, why: CacheError) -> FileHandle:
        why.object = why.object or str(ref)
        if ref.size is not None and ref.size > UNCACHED_BYTES:
            raise why
        if not self._warned_uncached:
            self._warned_uncached = True
            log.warning("serving uncached from memory: %s: %s", ref, why)
        # Too much for memory is the cache's fault: another server would not give less.
        with AnonymousSink(UNCACHED_BYTES, refusal=why) as sink:
            receiver = ObjectReceiver(ref, sink)
            self._origin.fetch(ref, receiver)
            self._count(stored_bytes=receiver.stored, content_bytes=receiver.content, uncached=1)
            return sink.handle()

    def _count(self, **more: int) -> None:
        with self._lock:
            now = self._counters
            self._counters = replace(
                now, **{name: getattr(now, name) + value for name, value in more.items()}
            )
