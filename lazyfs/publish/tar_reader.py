"""`TarReader`: the members of a tar stream, one after the other, in bounded memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from lazyfs.errors import FormatError, PublishError
from lazyfs.publish import tar_header as tar
from lazyfs.publish.tar_entry import TarEntry, check_global, merge_values
from lazyfs.publish.tar_header import BLOCK, Records, TarHeader, parse_records
from lazyfs.publish.tar_sparse import SparseMap, parse_pax_map, read_gnu_map, read_stored_map

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_EXTENSION_BYTES = 1 << 20
"""Of one extended header, which is read into memory."""

MAX_PADDING_BYTES = 64 << 20
"""After the end of an archive; GNU tar pads to 10 KiB unless it is told otherwise."""

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member of an archive."""

    entry: TarEntry
    size: int = 0
    """Of a regular file, holes included."""
    content: BinaryIO | None = None
    """Of a regular file; to be read before the next member is asked for."""


@contextlib.contextmanager
def naming(archive: str, path: bytes = b"") -> Iterator[None]:
    """Names archive and entry in whatever goes wrong with them.

    Raises:
        PublishError: for bytes that are no archive, and for a stream that cannot be read.
    """
    try:
        yield
    except FormatError as exc:
        raise PublishError(exc.message, object=archive, path=path or None, hint=exc.hint) from exc
    except OSError as exc:
        raise PublishError(
            f"cannot read: {exc.strerror or exc}", object=archive, path=path or None
        ) from exc


class TarReader:
    """Reads an archive.

    Args:
        stream: The archive, not compressed; it need not be seekable.
        name: Of the archive, for messages.
    """

    def __init__(self, stream: io.BufferedReader, name: str) -> None:
        self._stream = stream
        self.name = name
        self._for_all: dict[bytes, bytes] = {}
        self._content: _Content | None = None
        self._left = 0
        """Bytes of the current member that were not read yet, its padding included."""

    def members(self) -> Iterator[TarMember]:
        """All members, in the order of the archive.

        Raises:
            PublishError: the archive is damaged, was cut off, or has what is not understood. Also
                raised by reading content.
        """
        while True:
            with naming(self.name):
                member = self._next()
            if member is None:
                return
            yield member

    def _next(self) -> TarMember | None:
        """The next member, after the extended headers that belong to it."""
        self._skip()
        name = target = b""
        records: Records | None = None
        while (block := self._read(BLOCK)) != tar.END:
            header = TarHeader.parse(block)
            with naming(self.name, name or header.name):
                if header.kind in (tar.PAX, tar.PAX_SOLARIS):
                    if records is not None:
                        raise FormatError("an entry has two extended headers")
                    records = parse_records(self._extension(header))
                elif header.kind == tar.PAX_GLOBAL:
                    for key, value in parse_records(self._extension(header)):
                        if check_global(key):
                            self._for_all[key] = value
                elif header.kind == tar.GNU_NAME:
                    name = self._extension(header).partition(b"\0")[0]
                elif header.kind == tar.GNU_TARGET:
                    target = self._extension(header).partition(b"\0")[0]
                elif header.kind == tar.GNU_VOLUME:
                    self._extension(header)
                else:
                    return self._member(header, name, target, records or [])
        if name or target or records is not None:
            raise FormatError("the archive ends after a header that belongs to a further entry")
        self._finish()
        return None

    def _extension(self, header: TarHeader) -> bytes:
        if not 0 <= header.size <= MAX_EXTENSION_BYTES:
            raise FormatError(f"an extended header of {header.size} bytes is too long")
        return self._read(_padded(header.size))[: header.size]

    def _member(self, header: TarHeader, name: bytes, target: bytes, records: Records) -> TarMember:
        values = merge_values(self._for_all, records)
        name = values.get(b"GNU.sparse.name") or values.get(b"path") or name or header.name
        with naming(self.name, name):
            entry = TarEntry.combine(header, name, target or header.target, values)
            self._left = _padded(entry.stored)
            if not entry.is_file:
                return TarMember(entry)
            layout = self._layout(header, entry, records)
            self._content = _Content(self, name, layout)
            return TarMember(entry, layout.size, cast("BinaryIO", self._content))

    def _layout(self, header: TarHeader, entry: TarEntry, records: Records) -> SparseMap:
        """Which bytes of a file follow."""
        values, stored = entry.values, entry.stored
        version = values.get(b"GNU.sparse.major"), values.get(b"GNU.sparse.minor")
        if header.kind == tar.GNU_SPARSE:
            layout = read_gnu_map(header.block, lambda: self._read(BLOCK))
        elif version == (b"1", b"0"):
            real = values.get(b"GNU.sparse.realsize", b"")
            layout, taken = read_stored_map(real, self._read_own_block)
            stored -= taken
        elif b"GNU.sparse.size" in values:
            layout = parse_pax_map(values[b"GNU.sparse.size"], records)
        elif any(key.startswith(b"GNU.sparse.") for key in values):
            raise FormatError("a sparse file in an unknown form")
        else:
            return SparseMap(stored, ((0, stored),))
        if layout.stored != stored:
            raise FormatError("a sparse file has not the content that its map names")
        return layout

    # --- blocks ------------------------------------------------------------------------------

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise FormatError("the archive is incomplete: its end is missing")
        return data

    def _read_own_block(self) -> bytes:
        """A block of the current member's content."""
        if self._left < BLOCK:
            raise FormatError("the map of a sparse file is longer than its content")
        self._left -= BLOCK
        return self._read(BLOCK)

    def read_content(self, content: _Content, size: int) -> bytes:
        """The next bytes that are stored of a file, which must be the current member."""
        if content is not self._content:
            raise FormatError("content can be read only until the next entry is asked for")
        data = self._read(size)
        self._left -= size
        return data

    def _skip(self) -> None:
        """Pass over what was not read of the current member."""
        self._content = None
        while self._left:
            self._left -= len(self._read(min(self._left, _PIECE)))

    def _finish(self) -> None:
        """Read to the end of the stream, of which nothing may be passed over in silence."""
        # A compressed stream has its checksum there.
        padding = 0
        while piece := self._stream.read(_PIECE):
            padding += len(piece)
            if piece.strip(b"\0") or padding > MAX_PADDING_BYTES:
                raise FormatError(
                    "bytes follow the end of the archive",
                    hint="give archives one by one, not one after the other in one stream",
                )


class _Content(io.RawIOBase):
    """The content of one file, from its begin to its end, with its holes."""

    def __init__(self, reader: TarReader, path: bytes, layout: SparseMap) -> None:
        self._reader = reader
        self._path = path
        self._runs = layout.runs()
        self._left = 0
        self._is_stored = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most 1 MiB of them at once; all with a negative size."""
        if size < 0:
            return self.readall()
        while not self._left:
            run = next(self._runs, None)
            if run is None:
                return b""
            self._left, self._is_stored = run
        size = min(size, self._left, _PIECE)
        if self._is_stored:
            with naming(self._reader.name, self._path):
                data = self._reader.read_content(self, size)
        else:
            data = bytes(size)
        self._left -= size
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
