"""File content on its way into the store: compressed, hashed, uploaded."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lazyfs.cas.codec import ZLIB_LEVEL, Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.target import Upload, UploadTarget
from lazyfs.repository.catalog import Chunk

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Where a file's content lies, as a catalog records it."""

    size: int
    digest: Digest | None
    """The whole-file object; None if the file is chunked."""
    chunks: tuple[Chunk, ...] = ()
    codec: Codec = Codec.ZLIB
    external: bool = False
    """The bytes are served at the file's path, and not in the store."""

    @property
    def algorithm(self) -> Algorithm:
        """Of its digests."""
        digest = self.chunks[0].digest if self.digest is None else self.digest
        return digest.algorithm


@dataclass(frozen=True, slots=True)
class UploadCount:
    """Objects and stored bytes that were not there before."""

    objects: int = 0
    bytes: int = 0


class ContentStore:
    """Puts objects into a target. Safe to use from many threads.

    Args:
        target: Where objects go.
        algorithm: Names them.
        sizes: Files larger than the minimum are cut into chunks.
    """

    def __init__(
        self, target: UploadTarget, algorithm: Algorithm, sizes: ChunkSizes | None = None
    ) -> None:
        self.target = target
        self.algorithm = algorithm
        self.sizes = sizes or ChunkSizes()
        self._lock = threading.Lock()
        self.uploaded = UploadCount()

    def put_bytes(self, data: bytes, kind: ObjectKind) -> Digest:
        """Store a small object, zlib-compressed as all but file content is."""
        return self.put_pieces([data], Codec.ZLIB, kind)

    def put_pieces(
        self, pieces: Sequence[bytes | memoryview], codec: Codec, kind: ObjectKind
    ) -> Digest:
        """Store content that is in memory as one object, unless it is there."""
        stored = _compressed(pieces) if codec is Codec.ZLIB else pieces
        hasher = self.algorithm.hasher()
        for piece in stored:
            hasher.update(piece)
        digest = hasher.result()
        path = digest.object_path(kind)
        if not self.target.has(path):
            upload = self.target.upload()
            try:
                for piece in stored:
                    upload.write(bytes(piece))
                self._commit(upload, path, sum(len(piece) for piece in stored))
            finally:
                upload.discard()
        return digest

    def put_path(self, path: Path, kind: ObjectKind) -> tuple[Digest, int]:
        """Store a file of any size as one compressed object; its digest and uncompressed size."""
        compressor, hasher = zlib.compressobj(ZLIB_LEVEL), self.algorithm.hasher()
        upload = self.target.upload()
        size = stored = 0
        try:
            with path.open("rb") as file:
                while True:
                    piece = file.read(_PIECE)
                    size += len(piece)
                    output = compressor.compress(piece) if piece else compressor.flush()
                    hasher.update(output)
                    upload.write(output)
                    stored += len(output)
                    if not piece:
                        break
            digest = hasher.result()
            self._commit(upload, digest.object_path(kind), stored)
        finally:
            upload.discard()
        return digest, size

    def _commit(self, upload: Upload, path: str, size: int) -> None:
        if upload.commit(path):
            with self._lock:
                self.uploaded = UploadCount(self.uploaded.objects + 1, self.uploaded.bytes + size)


def _compressed(pieces: Sequence[bytes | memoryview]) -> list[bytes]:
    if len(pieces) == 1:
        return [zlib.compress(pieces[0], ZLIB_LEVEL)]
    compressor = zlib.compressobj(ZLIB_LEVEL)
    output = [compressor.compress(piece) for piece in pieces]
    return [*filter(None, output), compressor.flush()]
