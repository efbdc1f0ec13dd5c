"""`ContentPipeline`: many files on their way into the store at once, in bounded memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, TypeVar

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.errors import PublishError
from lazyfs.publish.content import ContentStore, StoredFile
from lazyfs.publish.cutter import Cutter
from lazyfs.publish.graft import make_graft
from lazyfs.publish.source import SourceItem
from lazyfs.repository.catalog import Chunk

Pending = Callable[[], StoredFile]
"""Waits until a file is stored, and tells where."""

_T = TypeVar("_T")
_PIECE = 1 << 20
_BATCH_FILES, _BATCH_BYTES = 64, 1 << 20
_AHEAD = 2
"""Pieces of work that may wait, beside those that are worked on."""


class ContentPipeline:
    """Cuts in the caller's thread; compresses, hashes and uploads in others.

    zlib and hashlib release the interpreter's lock, so all cores are used. What is in memory is
    bounded by the number of threads times the size of a chunk.

    Args:
        store: Where content goes.
        pool: The threads.
        workers: How many they are.
    """

    def __init__(self, store: ContentStore, pool: ThreadPoolExecutor, workers: int) -> None:
        self._store = store
        self._pool = pool
        self._places = threading.BoundedSemaphore(workers + _AHEAD)
        self._batch: _Batch | None = None

    def put(self, item: SourceItem, codec: Codec) -> Pending:
        """Begin to store the content of a regular file.

        Raises:
            PublishError: it cannot be read, or is not as long as its entry says. This may also be
                raised by the result.
        """
        size = item.entry.size
        if size > self._store.sizes.minimum:
            return self._put_large(item, codec)
        if item.streamed:
            content = read_whole(item)
            future = self._submit(lambda: self._store.put_pieces([content], codec, ObjectKind.FILE))
            return lambda: StoredFile(size, future.result(), codec=codec)
        if self._batch is None:
            self._batch = _Batch()
        batch, index = self._batch, self._batch.add(item, codec)
        if batch.is_full:
            self._submit_batch()

        def wait() -> StoredFile:
            if batch is self._batch:
                self._submit_batch()
            assert batch.future is not None
            return StoredFile(size, batch.future.result()[index], codec=codec)

        return wait

    def _submit_batch(self) -> None:
        batch, self._batch = self._batch, None
        assert batch is not None
        batch.future = self._submit(lambda: [self._put_small(*one) for one in batch.files])

    def _put_small(self, item: SourceItem, codec: Codec) -> Digest:
        return self._store.put_pieces([read_whole(item)], codec, ObjectKind.FILE)

    def name(self, item: SourceItem) -> Pending:
        """As `put`, for content that is served from elsewhere: it is read, but not stored."""

        def named() -> StoredFile:
            with _opened(item) as file:
                graft = make_graft(file, algorithm=self._store.algorithm)
            _check_size(item, graft.size)
            return graft.stored(Codec.NONE, external=True)

        if item.streamed:
            stored = named()
            return lambda: stored
        return self._submit(named).result

    def _put_large(self, item: SourceItem, codec: Codec) -> Pending:
        size, cutter = item.entry.size, Cutter(self._store.sizes)
        chunks: list[tuple[int, int, Future[Digest]]] = []
        pieces: list[bytes | memoryview] = []
        start = position = 0

        def submit(end: int, kind: ObjectKind) -> None:
            nonlocal pieces, start
            content, pieces = pieces, []
            future = self._submit(lambda: self._store.put_pieces(content, codec, kind))
            chunks.append((start, end - start, future))
            start = end

        with _opened(item) as file:
            while piece := _read(file, item):
                view, at = memoryview(piece), 0
                for mark in cutter.feed(piece):
                    pieces.append(view[at : mark - position])
                    submit(mark, ObjectKind.CHUNK)
                    at = mark - position
                pieces.append(view[at:])
                position += len(piece)
        _check_size(item, position)
        if not chunks:
            submit(size, ObjectKind.FILE)
            return lambda: StoredFile(size, chunks[0][2].result(), codec=codec)
        submit(size, ObjectKind.CHUNK)
        return lambda: StoredFile(
            size,
            None,
            tuple(Chunk(offset, length, future.result()) for offset, length, future in chunks),
            codec,
        )

    def _submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Have work done; waits while too much of it waits already."""
        self._places.acquire()

        def do() -> _T:
            try:
                return work()
            finally:
                self._places.release()

        try:
            return self._pool.submit(do)
        except BaseException:
            self._places.release()
            raise


class _Batch:
    """Small files that are stored by one visit to a thread, which costs as much as such a file."""

    def __init__(self) -> None:
        self.files: list[tuple[SourceItem, Codec]] = []
        self.future: Future[list[Digest]] | None = None
        self._bytes = 0

    def add(self, item: SourceItem, codec: Codec) -> int:
        """Take a file; its number here."""
        self.files.append((item, codec))
        self._bytes += item.entry.size
        return len(self.files) - 1

    @property
    def is_full(self) -> bool:
        """Whether it is worth the visit."""
        return len(self.files) >= _BATCH_FILES or self._bytes >= _BATCH_BYTES


def workers() -> int:
    """Threads for compressing: one a core, and one that waits for the disk meanwhile."""
    return (os.cpu_count() or 1) + 1


def read_whole(item: SourceItem) -> bytes:
    """The content of a file that fits into memory.

    Raises:
        PublishError: as `ContentPipeline.put`.
    """
    with _opened(item) as file:
        pieces = []
        while piece := _read(file, item):
            pieces.append(piece)
    content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    _check_size(item, len(content))
    return content


def _opened(item: SourceItem) -> BinaryIO:
    assert item.open is not None
    try:
        return item.open()
    except OSError as exc:
        raise PublishError(f"cannot read: {exc.strerror}", path=item.path) from exc


def _read(file: BinaryIO, item: SourceItem) -> bytes:
    try:
        return file.read(_PIECE)
    except OSError as exc:
        raise PublishError(f"cannot read: {exc.strerror}", path=item.path) from exc


def _check_size(item: SourceItem, size: int) -> None:
    if size != item.entry.size:
        raise PublishError("the file changes while it is published", path=item.path)
