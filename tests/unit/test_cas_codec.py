from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterable

import pytest

from lazyfs.cas.codec import Codec, decompress
from lazyfs.errors import CodecError

CONTENT = b"content " * 1000
STORED = Codec.ZLIB.compress(CONTENT)

MIB = 1 << 20


def decode(codec: Codec, pieces: Iterable[bytes], limit: int) -> bytes:
    decoder = codec.decoder(limit=limit)
    content = b"".join(out for piece in pieces for out in decoder.feed(piece))
    decoder.finish()
    return content


def bomb(size: int) -> bytes:
    """A zlib stream of ``size`` zeroes, made without holding them."""
    compressor = zlib.compressobj(9)
    zeroes = bytes(MIB)
    pieces = [compressor.compress(zeroes) for _ in range(size // MIB)]
    return b"".join((*pieces, compressor.flush()))


# --- what is right -------------------------------------------------------------------------


def test_the_numbers_are_upstreams() -> None:
    assert (Codec.ZLIB.value, Codec.NONE.value) == (0, 1)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, bytes(3 * MIB)], ids=len)
def test_content_comes_back_at_the_exact_limit(codec: Codec, content: bytes) -> None:
    assert decompress(codec, codec.compress(content), limit=len(content)) == content


def test_zlib_is_written_at_upstreams_level() -> None:
    assert Codec.ZLIB.compress(CONTENT) == zlib.compress(CONTENT, 6)


def test_no_codec_stores_content_as_it_is() -> None:
    assert Codec.NONE.compress(CONTENT) == CONTENT


@pytest.mark.parametrize("level", range(10))
def test_every_level_of_zlib_is_read(level: int) -> None:
    assert decompress(Codec.ZLIB, zlib.compress(CONTENT, level), limit=len(CONTENT)) == CONTENT


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("step", [1, 2, 7, 4096])
def test_a_stream_may_come_in_pieces_of_any_size(codec: Codec, step: int) -> None:
    stored = codec.compress(CONTENT)
    pieces = [stored[start : start + step] for start in range(0, len(stored), step)]
    assert decode(codec, pieces, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("codec", Codec)
def test_empty_pieces_change_nothing(codec: Codec) -> None:
    assert decode(codec, [b"", codec.compress(CONTENT), b""], len(CONTENT)) == CONTENT


@pytest.mark.parametrize("codec", Codec)
def test_views_of_memory_are_taken_too(codec: Codec) -> None:
    decoder = codec.decoder(limit=len(CONTENT))
    assert b"".join(decoder.feed(memoryview(codec.compress(CONTENT)))) == CONTENT


# --- what is wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("step", [1, 4096, 1 << 20])
def test_one_byte_over_the_limit_is_refused(codec: Codec, step: int) -> None:
    stored = codec.compress(CONTENT)
    pieces = [stored[start : start + step] for start in range(0, len(stored), step)]
    with pytest.raises(CodecError, match="than declared"):
        decode(codec, pieces, len(CONTENT) - 1)


@pytest.mark.parametrize("codec", Codec)
def test_nothing_at_all_may_come_where_nothing_is_declared(codec: Codec) -> None:
    assert decompress(codec, codec.compress(b""), limit=0) == b""
    with pytest.raises(CodecError, match="than declared"):
        decompress(codec, codec.compress(b"x"), limit=0)


@pytest.mark.parametrize("kept", [0, 1, 2, len(STORED) // 2, len(STORED) - 4, len(STORED) - 1])
def test_a_cut_zlib_stream_is_refused_at_its_end(kept: int) -> None:
    with pytest.raises(CodecError, match="ends early"):
        decompress(Codec.ZLIB, STORED[:kept], limit=len(CONTENT))


@pytest.mark.parametrize("more", [b"\0", STORED, bytes(MIB)], ids=len)
def test_bytes_after_the_end_of_a_zlib_stream_are_refused(more: bytes) -> None:
    with pytest.raises(CodecError, match="follow the end"):
        decompress(Codec.ZLIB, STORED + more, limit=2 * len(CONTENT))
    with pytest.raises(CodecError, match="follow the end"):
        decode(Codec.ZLIB, [STORED, more], 2 * len(CONTENT))


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"garbage", id="garbage"),
        pytest.param(CONTENT, id="not-compressed"),
        pytest.param(zlib.compress(CONTENT, wbits=31), id="gzip"),
        pytest.param(zlib.compress(CONTENT, wbits=-15), id="raw-deflate"),
        pytest.param(STORED[:-1] + bytes([STORED[-1] ^ 1]), id="wrong-checksum"),
        pytest.param(STORED[:20] + b"\xff" * 20 + STORED[40:], id="damaged-inside"),
        pytest.param(b"\x78\xbb\x01\x02\x03\x04", id="wants-a-dictionary"),
    ],
)
def test_what_is_no_zlib_stream_is_refused(stored: bytes) -> None:
    with pytest.raises(CodecError):
        decompress(Codec.ZLIB, stored, limit=2 * len(CONTENT))


# --- bombs ---------------------------------------------------------------------------------


def peak_of(stored: bytes, limit: int) -> tuple[int, CodecError | None]:
    """Most bytes held while decoding and dropping the content, and how it ended."""
    decoder = Codec.ZLIB.decoder(limit=limit)
    error = None
    tracemalloc.start()
    try:
        for piece in decoder.feed(stored):
            assert len(piece) <= MIB
        decoder.finish()
    except CodecError as exc:
        error = exc
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, error


def test_a_bomb_is_refused_having_given_no_more_than_its_limit() -> None:
    peak, error = peak_of(bomb(64 * MIB), MIB)
    assert error is not None
    assert "more than declared" in error.message
    assert peak < 8 * MIB


def test_a_bomb_within_its_limit_is_never_held_as_a_whole() -> None:
    peak, error = peak_of(bomb(32 * MIB), 32 * MIB)
    assert error is None
    assert peak < 8 * MIB
