"""`Graft`: a file whose content is not read but named. Source: upstream ``swissknife_graft.cc``.

Beside an empty file ``NAME`` lies ``.cvmfsgraft-NAME`` and says its size and digests; the content
is in the store already, or served from elsewhere.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from lazyfs.cas.codec import ZLIB_LEVEL, Codec
from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import FormatError, PublishError
from lazyfs.publish.content import StoredFile
from lazyfs.repository.catalog import Chunk
from lazyfs.repository.row import MAX_SIZE

GRAFT_PREFIX = b".cvmfsgraft-"

CHUNK_SIZE = 24 << 20
"""Upstream's default; grafts are cut at fixed offsets, as their content is not deduplicated."""

MAX_GRAFT_BYTES = 64 << 20
"""Of a marker: chunks of a million, which is 24 TB in those of upstream's size."""

_PIECE = 1 << 20
_NUMBER = re.compile(r"[0-9]{1,19}")
_CODECS = {"zlib": Codec.ZLIB, "default": Codec.ZLIB, "none": Codec.NONE}
_NULL = bytes(20)


@dataclass(frozen=True, slots=True)
class Graft:
    """What a marker says of its file."""

    size: int
    digest: Digest | None
    """Names the whole content; None if only its chunks are named."""
    codec: Codec | None = None
    """None: the repository's."""
    chunks: tuple[Chunk, ...] = ()

    def stored(self, codec: Codec, *, external: bool = False) -> StoredFile:
        """The content as a catalog records it.

        Args:
            codec: Of the repository, if the marker names none.
            external: The content is served from elsewhere, and not in the store.
        """
        digest = None if self.chunks else self.digest
        return StoredFile(self.size, digest, self.chunks, self.codec or codec, external)


def marker_name(name: bytes) -> bytes:
    """How the marker of a file is named."""
    return GRAFT_PREFIX + name


def grafted_name(name: bytes) -> bytes | None:
    """The name of the file that the marker ``name`` is for; None if it is no marker."""
    return name.removeprefix(GRAFT_PREFIX) if name.startswith(GRAFT_PREFIX) else None


def parse_graft(data: bytes, path: bytes) -> Graft:
    """What a marker says; keys that are not known are passed over, as upstream does.

    Args:
        data: Its content.
        path: For messages.

    Raises:
        PublishError: it is damaged, incomplete, or contradicts itself.
    """
    try:
        return _parse(data)
    except FormatError as exc:
        raise PublishError(
            f"damaged graft marker: {exc.message}",
            path=path,
            hint="make it again, or remove it together with the file it is for",
        ) from exc


def _parse(data: bytes) -> Graft:
    values = _values(data)
    size = _number("size", values.get("size"))
    if size > MAX_SIZE:
        raise FormatError(f"the size {size} is too large")
    if "checksum" not in values:
        raise FormatError("there is no checksum")
    # Upstream writes zeros where it made chunks alone.
    digest = Digest.parse_content(values["checksum"])
    codec = None
    if "compression" in values:
        codec = _CODECS.get(values["compression"])
        if codec is None:
            raise FormatError(f"unknown compression {values['compression'][:40]!r}")
    chunks = _chunks(values.get("chunk_offsets"), values.get("chunk_checksums"), size)
    if digest.is_null and not chunks:
        raise FormatError("the checksum is none")
    algorithms = {chunk.digest.algorithm for chunk in chunks}
    if not digest.is_null:
        algorithms.add(digest.algorithm)
    if len(algorithms) > 1:
        raise FormatError("checksums of different algorithms")
    return Graft(size, None if digest.is_null else digest, codec, chunks)


def _values(data: bytes) -> dict[str, str]:
    if len(data) > MAX_GRAFT_BYTES:
        raise FormatError(f"it is longer than {MAX_GRAFT_BYTES} bytes")
    values: dict[str, str] = {}
    for number, raw in enumerate(data.decode(errors="replace").split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise FormatError(f"line {number} is not KEY=VALUE")
        if key in values:
            raise FormatError(f"{key} is there twice")
        values[key] = value
    return values


def _number(key: str, text: str | None) -> int:
    if text is None:
        raise FormatError(f"there is no {key}")
    if not _NUMBER.fullmatch(text):
        raise FormatError(f"{key} is not a number: {text[:40]!r}")
    return int(text)


def _chunks(offsets: str | None, checksums: str | None, size: int) -> tuple[Chunk, ...]:
    starts = [_number("chunk_offsets", text) for text in _listed(offsets)]
    # Whoever builds a marker from object names leaves the letter of chunks at the end.
    digests = [Digest.parse_content(text.removesuffix("P")) for text in _listed(checksums)]
    if len(starts) != len(digests):
        raise FormatError(f"{len(starts)} chunk offsets, but {len(digests)} checksums")
    if not starts:
        return ()
    if starts[0] != 0:
        raise FormatError("the first chunk does not begin at 0")
    ends = [*starts[1:], size]
    chunks = []
    for start, end, digest in zip(starts, ends, digests, strict=True):
        if start >= end:
            raise FormatError(f"the chunk at {start} does not end after it begins")
        if digest.is_null:
            raise FormatError(f"the checksum of the chunk at {start} is none")
        chunks.append(Chunk(start, end - start, digest))
    return tuple(chunks)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def dump_graft(graft: Graft) -> bytes:
    """The marker that says ``graft``, line by line as upstream writes it."""
    digest = graft.digest or Digest(graft.chunks[0].digest.algorithm, _NULL)
    lines = [f"size={graft.size}", f"checksum={digest}"]
    if graft.codec is not None:
        lines.append(f"compression={graft.codec.name.lower()}")
    if graft.chunks:
        lines.append("chunk_offsets=" + ",".join(str(chunk.offset) for chunk in graft.chunks))
        lines.append("chunk_checksums=" + ",".join(str(chunk.digest) for chunk in graft.chunks))
    return "".join(f"{line}\n" for line in lines).encode()


def make_graft(
    file: BinaryIO,
    chunk_size: int = CHUNK_SIZE,
    *,
    algorithm: Algorithm = Algorithm.SHA1,
    codec: Codec = Codec.NONE,
) -> Graft:
    """The graft of a file's content, which is read to its end.

    Args:
        file: Read in pieces, of any length.
        chunk_size: Longer content is cut every so many bytes; 0 never cuts.
        algorithm: Names the content.
        codec: How it is served. Compressed content is never cut: a server cannot answer for a
            range of it.
    """
    limit = chunk_size if codec is Codec.NONE else 0
    chunks: list[Chunk] = []
    size = 0
    while True:
        length, digest = _digest(_pieces(file, limit), algorithm, codec)
        if length or not chunks:
            chunks.append(Chunk(size, length, digest))
        size += length
        if not limit or length < limit:
            break
    if len(chunks) == 1:
        return Graft(size, chunks[0].digest, codec)
    return Graft(size, None, codec, tuple(chunks))


def _pieces(file: BinaryIO, limit: int) -> Iterator[bytes]:
    """The next ``limit`` bytes of a file; 0: all that is left."""
    left = limit or None
    while left is None or left > 0:
        piece = file.read(_PIECE if left is None else min(_PIECE, left))
        if not piece:
            return
        yield piece
        if left is not None:
            left -= len(piece)


def _digest(pieces: Iterator[bytes], algorithm: Algorithm, codec: Codec) -> tuple[int, Digest]:
    """Length of the content, and the digest of what is served for it."""
    hasher, length = algorithm.hasher(), 0
    compressor = zlib.compressobj(ZLIB_LEVEL) if codec is Codec.ZLIB else None
    for piece in pieces:
        length += len(piece)
        hasher.update(piece if compressor is None else compressor.compress(piece))
    if compressor is not None:
        hasher.update(compressor.flush())
    return length, hasher.result()
