"""File content on its way into the store: cut, compressed, hashed, uploaded."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lazyfs.cas.codec import ZLIB_LEVEL, Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.errors import PublishError
from lazyfs.publish.cutter import ChunkSizes, Cutter
from lazyfs.publish.target import Upload, UploadTarget
from lazyfs.repository.catalog import Chunk

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What became of a file's content."""

    size: int
    digest: Digest | None
    """The whole-file object; None if the file is chunked."""
    chunks: tuple[Chunk, ...] = ()


@dataclass(frozen=True, slots=True)
class UploadCount:
    """Objects and stored bytes that were not there before."""

    objects: int = 0
    bytes: int = 0


class ContentStore:
    """Puts content into a target. Safe to use from many threads; bounded memory for any size.

    Args:
        target: Where objects go.
        algorithm: Names them.
        sizes: Files larger than the minimum are cut into chunks.
    """

    def __init__(self, target: UploadTarget, algorithm: Algorithm, sizes: ChunkSizes) -> None:
        self._target = target
        self.algorithm = algorithm
        self._sizes = sizes
        self._lock = threading.Lock()
        self.uploaded = UploadCount()

    def put_bytes(self, data: bytes, kind: ObjectKind) -> Digest:
        """Store a small object, zlib-compressed as all but file content is."""
        stored = Codec.ZLIB.compress(data)
        digest = self.algorithm.digest(stored)
        path = digest.object_path(kind)
        if not self._target.has(path):
            upload = self._target.upload()
            try:
                upload.write(stored)
                self._commit(upload, path, len(stored))
            finally:
                upload.discard()
        return digest

    def put_path(self, path: Path, kind: ObjectKind) -> tuple[Digest, int]:
        """Store a whole file as one object; its digest and its uncompressed size."""
        with path.open("rb") as file:
            writer = _ObjectWriter(self, Codec.ZLIB, kind)
            try:
                size = 0
                while piece := file.read(_PIECE):
                    writer.write(piece)
                    size += len(piece)
                return writer.finish(), size
            finally:
                writer.discard()

    def put_file(self, path: bytes, codec: Codec) -> StoredFile:
        """Store a file's content, in chunks if it is large and a cut is found.

        Raises:
            PublishError: the file cannot be read or changes while it is.
        """
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - the path is bytes
                return self._put_stream(file, path, codec)
        except OSError as exc:
            raise PublishError(f"cannot read: {exc.strerror}", path=path) from exc

    def _put_stream(self, file: BinaryIO, path: bytes, codec: Codec) -> StoredFile:
        size = os.fstat(file.fileno()).st_size
        may_cut = size > self._sizes.minimum
        cutter = Cutter(self._sizes) if may_cut else None
        chunks: list[Chunk] = []
        writer = _ObjectWriter(self, codec, ObjectKind.CHUNK if may_cut else ObjectKind.FILE)
        start = 0
        try:
            for offset, piece in _pieces(file):
                at = 0
                for mark in cutter.feed(piece) if cutter else ():
                    writer.write(piece[at : mark - offset])
                    chunks.append(Chunk(start, mark - start, writer.finish()))
                    writer = _ObjectWriter(self, codec, ObjectKind.CHUNK)
                    start, at = mark, mark - offset
                writer.write(piece[at:])
            if file.tell() != size:
                raise PublishError("the file changes while it is published", path=path)
            if not chunks:
                # One object after all: the same bytes under the letter of a whole file.
                writer.kind = ObjectKind.FILE
                return StoredFile(size, writer.finish())
            chunks.append(Chunk(start, size - start, writer.finish()))
            return StoredFile(size, None, tuple(chunks))
        finally:
            writer.discard()

    def _commit(self, upload: Upload, path: str, size: int) -> None:
        if upload.commit(path):
            with self._lock:
                self.uploaded = UploadCount(self.uploaded.objects + 1, self.uploaded.bytes + size)

    @property
    def target(self) -> UploadTarget:
        """Where objects go."""
        return self._target


def _pieces(file: BinaryIO) -> Iterator[tuple[int, memoryview]]:
    offset = 0
    while piece := file.read(_PIECE):
        yield offset, memoryview(piece)
        offset += len(piece)


class _ObjectWriter:
    """One object: compresses and hashes what is written."""

    def __init__(self, store: ContentStore, codec: Codec, kind: ObjectKind) -> None:
        self._store = store
        self.kind = kind
        self._hasher = store.algorithm.hasher()
        self._compressor = zlib.compressobj(ZLIB_LEVEL) if codec is Codec.ZLIB else None
        self._upload = store.target.upload()
        self._stored = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append content."""
        self._put(self._compressor.compress(data) if self._compressor else bytes(data))

    def _put(self, stored: bytes) -> None:
        if stored:
            self._hasher.update(stored)
            self._upload.write(stored)
            self._stored += len(stored)

    def finish(self) -> Digest:
        """Make the object visible; its digest."""
        if self._compressor is not None:
            self._put(self._compressor.flush())
        digest = self._hasher.result()
        self._store._commit(self._upload, digest.object_path(self.kind), self._stored)
        return digest

    def discard(self) -> None:
        """Forget the object, unless it is finished."""
        self._upload.discard()
