"""Codecs: how an object's content is stored. Streams are bounded by what was declared."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterator
from typing import Protocol

from lazyfs.errors import CodecError

ZLIB_LEVEL = 6
"""Upstream's ``deflateInit`` level; another level gives another digest for the same content."""

_INFLATE_PIECE = 1 << 20
"""Most bytes that one step of the inflater may return, so that a bomb is noticed early."""


class Codec(enum.Enum):
    """Compression of an object; the value is upstream's number in the catalog flags."""

    ZLIB = 0
    NONE = 1

    def compress(self, data: bytes) -> bytes:
        """``data`` as it is stored."""
        return zlib.compress(data, ZLIB_LEVEL) if self is Codec.ZLIB else data

    def decoder(self, *, limit: int) -> Decoder:
        """A fresh streaming decoder that refuses to give more than ``limit`` bytes."""
        return _Inflater(limit) if self is Codec.ZLIB else _Identity(limit)


class Decoder(Protocol):
    """Turns stored bytes into content, piece by piece."""

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The content that ``data`` completes, in pieces of at most 1 MiB for zlib.

        Each piece is made when it is asked for, so that no more than one need be held: a few
        KiB of ``data`` may give a thousand times as much. All of them must be asked for.

        Raises:
            CodecError: the stream is damaged or gives more than its limit.
        """

    def finish(self) -> None:
        """Check that the stream ended where the data ended.

        Raises:
            CodecError: the stream was cut, or bytes follow its end.
        """


def decompress(codec: Codec, data: bytes, *, limit: int) -> bytes:
    """The content of a whole stored object, at most ``limit`` bytes.

    Raises:
        CodecError: the stream is damaged, cut, or gives more than ``limit`` bytes.
    """
    decoder = codec.decoder(limit=limit)
    content = b"".join(decoder.feed(data))
    decoder.finish()
    return content


class _Identity:
    def __init__(self, limit: int) -> None:
        self._left = limit

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        self._left -= len(data)
        if self._left < 0:
            raise CodecError("the object is longer than declared")
        if data:
            yield bytes(data)

    def finish(self) -> None:
        return


class _Inflater:
    def __init__(self, limit: int) -> None:
        self._stream = zlib.decompressobj()
        self._left = limit

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        while data:
            try:
                # One byte more than allowed is enough to know that the stream is too long.
                piece = self._stream.decompress(data, min(_INFLATE_PIECE, self._left + 1))
            except zlib.error as exc:
                raise CodecError(f"damaged zlib stream: {exc}") from exc
            self._left -= len(piece)
            if self._left < 0:
                raise CodecError("the object inflates to more than declared")
            if piece:
                yield piece
            if self._stream.unused_data:
                raise CodecError("bytes follow the end of the zlib stream")
            data = self._stream.unconsumed_tail

    def finish(self) -> None:
        if not self._stream.eof:
            raise CodecError("the zlib stream ends early")
