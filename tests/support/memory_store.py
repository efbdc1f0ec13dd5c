"""A store of objects in memory, for tests that need no cache and no server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.origin import open_uncached
from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.cas.verify import MemorySink, ObjectReceiver
from lazyfs.errors import LazyfsError, ObjectMissing


class MemoryStore:
    """Verifies as every store does, and counts what it is asked for."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Digest, ObjectKind], bytes] = {}
        self.external: dict[bytes, bytes] = {}
        """Content of external files by path."""
        self.opened: Counter[Digest] = Counter()
        self.cached: set[Digest] | None = None
        """What `peek` finds; None: all."""
        self.on_open: Callable[[ObjectRef], None] = lambda ref: None
        """Called before an object is given."""
        self._lock = threading.Lock()

    def put(
        self,
        content: bytes,
        kind: ObjectKind = ObjectKind.FILE,
        codec: Codec = Codec.ZLIB,
        algorithm: Algorithm = Algorithm.SHA1,
    ) -> Digest:
        """Store ``content``; its digest."""
        stored = codec.compress(content)
        digest = algorithm.digest(stored)
        self.objects[digest, kind] = stored
        return digest

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        receiver.restart()
        where = ref.external
        if where is None:
            stored = self.objects.get((ref.digest, ref.kind))
        else:
            stored = self.external.get(where.path)
            if stored is not None and where.offset is not None and where.length is not None:
                stored = stored[where.offset : where.offset + where.length]
        if stored is None:
            raise ObjectMissing("no server has it", object=str(ref))
        receiver.write(stored)
        receiver.finish()

    def open(self, ref: ObjectRef) -> FileHandle:
        with self._lock:
            self.opened[ref.digest] += 1
        self.on_open(ref)
        return open_uncached(self, ref)

    def peek(self, ref: ObjectRef) -> FileHandle | None:
        if self.cached is not None and ref.digest not in self.cached:
            return None
        try:
            return open_uncached(self, ref)
        except LazyfsError:
            return None

    def verify(self, ref: ObjectRef) -> None:
        self.fetch(ref, ObjectReceiver(ref, MemorySink()))
