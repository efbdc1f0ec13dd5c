from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tracemalloc
from collections.abc import Callable
from typing import BinaryIO

import pytest
import zstandard

from lazyfs.errors import CodecError
from lazyfs.publish import decompression
from lazyfs.publish.decompression import decompressed

rng = random.Random(5)
# Pieces that cannot be compressed, and some that can: so blocks of all kinds are made.
CONTENT = b"".join(
    rng.randbytes(rng.randrange(9000)) + bytes(rng.randrange(200_000)) for _ in range(9)
)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def bare_zstd(data: bytes) -> bytes:
    """Without a checksum, and without the size of the content."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(data) + compressor.flush()


def skippable(content: bytes) -> bytes:
    """A frame that decoders pass over; pzstd begins with one."""
    return b"\x5e\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "zstd without checksum": bare_zstd,
    "zstd in frames": lambda data: skippable(b"") + zstd(data) + skippable(b"hello"),
}
every_format = pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)


class Dribble:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data = io.BytesIO(data)
        self._most = most

    def read(self, size: int) -> bytes:
        return self._data.read(min(size, self._most))


def read(data: bytes | BinaryIO) -> bytes:
    return decompressed(io.BytesIO(data) if isinstance(data, bytes) else data).read()


@every_format
def test_formats_are_known_by_their_first_bytes(compress: Callable[[bytes], bytes]) -> None:
    assert read(compress(CONTENT)) == CONTENT
    assert read(compress(b"")) == b""


@every_format
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_a_pipe_may_give_little_at_a_time(compress: Callable[[bytes], bytes], most: int) -> None:
    content = CONTENT[:20_000]
    assert read(Dribble(compress(content), most)) == content  # type: ignore[arg-type]


@every_format
def test_all_members_count(compress: Callable[[bytes], bytes]) -> None:
    parts = [CONTENT[:5000], b"", CONTENT[5000:70_000], b"x"]
    stream = b"".join(compress(part) for part in parts)
    assert read(stream) == b"".join(parts)
    assert read(Dribble(stream, 5)) == b"".join(parts)  # type: ignore[arg-type]


@every_format
def test_a_stream_that_was_cut_is_refused(compress: Callable[[bytes], bytes]) -> None:
    stream = compress(CONTENT)
    last = len(stream) - len(skippable(b"hello")) * stream.endswith(b"hello")
    for length in [*range(10, 60), *range(60, last, 997), *range(last - 60, last)]:
        with pytest.raises(CodecError, match=r"ends early|cannot be decoded"):
            read(stream[:length])


@every_format
def test_a_second_member_that_was_cut_is_refused(compress: Callable[[bytes], bytes]) -> None:
    first, second = compress(b"first"), compress(b"second")
    for length in range(1, len(second) - 13 * second.endswith(b"hello")):
        if first.startswith(skippable(b"")) and length == len(skippable(b"")):
            continue
        with pytest.raises(CodecError):
            read(first + second[:length])


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_damage_is_noticed(name: str) -> None:
    stream = bytearray(COMPRESSORS[name](CONTENT))
    stream[len(stream) // 2] ^= 1
    with pytest.raises(CodecError):
        read(bytes(stream))


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_what_follows_must_be_a_member_too(name: str) -> None:
    stream = COMPRESSORS[name](CONTENT)
    for rest in (b"x", b"junk and more of it", stream[1:]):
        with pytest.raises(CodecError):
            read(stream + rest)


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
def test_zeros_may_pad_a_stream(name: str) -> None:
    stream = COMPRESSORS[name](CONTENT)
    assert read(stream + bytes(1000)) == CONTENT
    assert read(stream + bytes(20) + stream) == CONTENT * 2
    assert read(Dribble(stream + bytes(20) + stream, 3)) == CONTENT * 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"PK", b"BZh", b"BZhang", b"BZh9/file" + bytes(500), b"LZIP" + CONTENT, CONTENT],
)
def test_what_is_not_compressed_stays_as_it_is(data: bytes) -> None:
    assert read(data) == data
    assert read(Dribble(data, 2)) == data  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x1f\x9d\x90", "compress"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"LZIP\x01", "lzip"),
        (lzma.compress(b"x", lzma.FORMAT_ALONE), "lzma"),
        (b"PK\x03\x04", "zip"),
    ],
)
def test_other_formats_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(CodecError, match=f"compressed with {name},"):
        read(data.ljust(100, b"x"))


@every_format
def test_a_bomb_takes_no_memory(compress: Callable[[bytes], bytes]) -> None:
    stream = io.BytesIO(compress(bytes(64 << 20)))
    tracemalloc.start()
    try:
        content = decompressed(stream)
        size = 0
        while piece := content.read(100_000):
            size += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 64 << 20
    assert peak < 16 << 20  # xz alone has a window of 8 MiB


def test_a_decoder_that_would_need_too_much_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(CodecError, match="cannot be decoded"):
        read(compressor.compress(b"x" * 1000) + compressor.flush())
    monkeypatch.setattr(decompression, "MAX_DECODER_BYTES", 1 << 20)
    with pytest.raises(CodecError, match="cannot be decoded"):
        read(lzma.compress(b"x" * 1000))


class Watched(io.BytesIO):
    """A stream that tells how far it was read."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.position = self.tell()
        return data


@every_format
def test_no_more_is_read_than_is_needed(
    compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "BUFFER", 1 << 10)
    stream = Watched(compress(bytes(64 << 20) + CONTENT))
    content = decompressed(stream)
    for _ in range(200):
        assert content.read(500) == bytes(500)
    assert stream.position < 8 << 10


class Failing(io.BytesIO):
    """A stream that fails at its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise OSError(5, "Input/output error")
        return data


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_errors_of_the_stream_are_not_taken_for_damage(name: str) -> None:
    stream = COMPRESSORS[name](CONTENT)
    with pytest.raises(OSError, match="Input/output"):
        read(Failing(stream[: len(stream) // 2]))


def test_the_stream_stays_open() -> None:
    stream = io.BytesIO(gzip.compress(b"x"))
    content = decompressed(stream)
    assert content.read() == b"x"
    content.close()
    assert not stream.closed
