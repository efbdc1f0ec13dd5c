"""`decompressed`: the content of a stream that may be compressed, in bounded memory."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import zstandard

from lazyfs.errors import CodecError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 256 << 10

MAX_DECODER_BYTES = 128 << 20
"""Most memory that a stream may ask its decoder to use: twice what ``xz -9`` needs, and what
``zstd`` allows unless it is told otherwise."""

_HEAD = 10
"""Bytes that tell the formats apart, from each other and from a tar that begins with a name."""

_ZSTD = b"\x28\xb5\x2f\xfd"
_UNSUPPORTED = {
    b"\x1f\x9d": "compress",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP\x01": "lzip",
    b"\x5d\x00\x00": "lzma",
    b"PK\x03\x04": "zip",
}


class _Decoder(Protocol):
    """Of one member of a stream, as `bz2` and `lzma` have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def decompressed(stream: BinaryIO) -> io.BufferedReader:
    """The content of a stream; one that is not compressed is given as it is.

    gzip, zstd, xz and bzip2 are known by their first bytes. All members of a stream count, as the
    parallel compressors write them, and its checksums are verified. The stream need not be
    seekable, and stays open.

    Raises:
        CodecError: it is compressed in another way; from reading also: it is damaged or cut.
        OSError: from the stream.
    """
    head = b""
    while len(head) < _HEAD and (piece := stream.read(_HEAD - len(head))):
        head += piece
    source = _Rejoined(head, stream)
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise CodecError(
                f"compressed with {name}, which cannot be read",
                hint="decompress it, or use gzip, zstd, xz or bzip2",
            )
    if head.startswith(_ZSTD) or _is_skippable(head):
        return io.BufferedReader(_Zstd(source), BUFFER)
    for begin, make in _DECODERS.items():
        if begin.match(head):
            return io.BufferedReader(_Members(source, make), BUFFER)
    return io.BufferedReader(source, BUFFER)


class _Rejoined(io.RawIOBase):
    """A stream and what was read of it already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def take(self, most: int) -> bytes:
        """The next bytes; none at the end."""
        if self._head:
            piece, self._head = self._head[:most], self._head[most:]
            return piece
        return self._stream.read(most)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return _fill(buffer, self.take(len(memoryview(buffer))))


def _fill(buffer: WriteableBuffer, data: bytes) -> int:
    memoryview(buffer)[: len(data)] = data
    return len(data)


class _Gunzip:
    """`zlib` in the form of `bz2` and `lzma`."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._tail = b""

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self._tail

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        output = self._inflater.decompress(self._tail + data, max_length)
        self._tail = self._inflater.unconsumed_tail
        return output


_DECODERS: dict[re.Pattern[bytes], Callable[[], _Decoder]] = {
    re.compile(rb"\x1f\x8b\x08"): _Gunzip,
    # Digits of pi before a block, of its square root at the end.
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"): bz2.BZ2Decompressor,
    re.compile(rb"\xfd7zXZ\x00"): lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_DECODER_BYTES),
}


class _Members(io.RawIOBase):
    """A stream of compressed members, one after the other."""

    def __init__(self, source: _Rejoined, make: Callable[[], _Decoder]) -> None:
        self._source = source
        self._make = make
        self._decoder: _Decoder | None = make()
        self._input = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        wanted = len(memoryview(buffer))
        while self._decoder is not None or self._begin():
            assert self._decoder is not None
            ended = False
            if not self._input and self._decoder.needs_input:
                self._input = self._source.take(BUFFER)
                ended = not self._input
            try:
                output = self._decoder.decompress(self._input, wanted)
            except (zlib.error, lzma.LZMAError, OSError, EOFError) as exc:
                raise CodecError(f"the compressed stream cannot be decoded: {exc}") from exc
            self._input = b""
            if self._decoder.eof:
                self._input, self._decoder = self._decoder.unused_data, None
            elif ended and not output:
                raise CodecError("the compressed stream ends early")
            if output:
                return _fill(buffer, output)
        return 0

    def _begin(self) -> bool:
        """Begin the next member, if there is one; writers pad with zeros."""
        self._input = self._input.lstrip(b"\0")
        while not self._input and (piece := self._source.take(BUFFER)):
            self._input = piece.lstrip(b"\0")
        if self._input:
            self._decoder = self._make()
        return bool(self._input)


class _Zstd(io.RawIOBase):
    """A stream of zstd frames."""

    def __init__(self, source: _Rejoined) -> None:
        self._frames = _Frames(source)
        self._reader = zstandard.ZstdDecompressor(max_window_size=MAX_DECODER_BYTES).stream_reader(
            cast("BinaryIO", self._frames), read_size=BUFFER, read_across_frames=True
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            count = self._reader.readinto(buffer)
        except zstandard.ZstdError as exc:
            raise CodecError(f"the compressed stream cannot be decoded: {exc}") from exc
        if not count and not self._frames.complete:
            raise CodecError("the compressed stream ends early")
        return count


def _is_skippable(magic: bytes) -> bool:
    return len(magic) >= 4 and magic[0] & 0xF0 == 0x50 and magic[1:4] == b"\x2a\x4d\x18"


class _Frames:
    """Follows the frames of a stream while it is read.

    The decoder takes the end of its input for the end of the content, wherever it comes.
    """

    def __init__(self, source: _Rejoined) -> None:
        self._source = source
        self._steps = self._walk()
        self._need = next(self._steps)
        self._have = b""
        self.complete = True

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.take(size)
        at = 0
        while at < len(data):
            self.complete = False
            taken = min(abs(self._need), len(data) - at)
            if self._need > 0:
                self._have += data[at : at + taken]
                self._need -= taken
            else:
                self._need += taken
            at += taken
            while self._need == 0:
                have, self._have = self._have, b""
                self._need = self._steps.send(have)
        return data

    def _walk(self) -> Generator[int, bytes, None]:
        """Asks for as many bytes as it yields, or has as many skipped."""
        while True:
            magic = yield 4
            if _is_skippable(magic):
                yield -int.from_bytes((yield 4), "little")
            elif magic == _ZSTD:
                yield from self._walk_frame()
            self.complete = True

    def _walk_frame(self) -> Generator[int, bytes, None]:
        descriptor = (yield 1)[0]
        single = descriptor >> 5 & 1
        content_size = (single, 2, 4, 8)[descriptor >> 6]
        dictionary = (0, 1, 2, 4)[descriptor & 3]
        yield -(1 - single + dictionary + content_size)
        last = False
        while not last:
            block = int.from_bytes((yield 3), "little")
            last = bool(block & 1)
            yield -(1 if block >> 1 & 3 == 1 else block >> 3)
        if descriptor & 4:
            yield -4
