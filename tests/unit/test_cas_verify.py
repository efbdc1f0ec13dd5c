from __future__ import annotations

import tracemalloc
import zlib

import pytest

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.cas.store import ObjectRef
from lazyfs.cas.verify import MemorySink, NullSink, ObjectReceiver
from lazyfs.errors import CacheFull, CodecError, FormatError, HashMismatch, VerificationError

CONTENT = b"what a file holds\n" * 5000
MIB = 1 << 20

BOTH = pytest.mark.parametrize("codec", Codec)


def ref_for(
    stored: bytes,
    codec: Codec = Codec.ZLIB,
    *,
    algorithm: Algorithm = Algorithm.SHA1,
    size: int | None = len(CONTENT),
    limit: int = 1 << 30,
) -> ObjectRef:
    """A reference that fits ``stored``, whatever that is: the publisher may be the bad one."""
    return ObjectRef(algorithm.digest(stored), codec=codec, size=size, limit=limit, label="/f")


def receive(ref: ObjectRef, stored: bytes, step: int = 4096) -> bytes:
    sink = MemorySink()
    receiver = ObjectReceiver(ref, sink)
    receiver.restart()
    for start in range(0, len(stored), step):
        receiver.write(stored[start : start + step])
    receiver.finish()
    return sink.getvalue()


# --- what is right -------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_has_the_right_digest_and_size_is_given(codec: Codec, algorithm: Algorithm) -> None:
    stored = codec.compress(CONTENT)
    assert receive(ref_for(stored, codec, algorithm=algorithm), stored) == CONTENT


@BOTH
def test_nothing_is_an_object_too(codec: Codec) -> None:
    stored = codec.compress(b"")
    assert receive(ref_for(stored, codec, size=0), stored) == b""


@BOTH
def test_a_size_need_not_be_declared(codec: Codec) -> None:
    stored = codec.compress(CONTENT)
    assert receive(ref_for(stored, codec, size=None), stored) == CONTENT


def test_the_digest_covers_the_stored_bytes_and_not_the_content() -> None:
    ref = ObjectRef(Algorithm.SHA1.digest(CONTENT), size=len(CONTENT))
    with pytest.raises(HashMismatch):
        receive(ref, Codec.ZLIB.compress(CONTENT))


def test_bytes_are_counted_as_stored_and_as_content() -> None:
    stored = Codec.ZLIB.compress(CONTENT)
    receiver = ObjectReceiver(ref_for(stored), NullSink())
    receiver.write(stored)
    receiver.finish()
    assert (receiver.stored, receiver.content) == (len(stored), len(CONTENT))


@BOTH
def test_a_new_attempt_forgets_the_last(codec: Codec) -> None:
    stored = codec.compress(CONTENT)
    sink = MemorySink()
    receiver = ObjectReceiver(ref_for(stored, codec), sink)
    receiver.write(stored[: len(stored) // 2])
    receiver.restart()
    assert (receiver.stored, receiver.content) == (0, 0)
    receiver.write(stored)
    receiver.finish()
    assert sink.getvalue() == CONTENT


def test_a_new_attempt_may_follow_a_refused_one() -> None:
    stored = Codec.ZLIB.compress(CONTENT)
    sink = MemorySink()
    receiver = ObjectReceiver(ref_for(stored), sink)
    with pytest.raises(CodecError):
        receiver.write(b"an error page")
    receiver.restart()
    receiver.write(stored)
    receiver.finish()
    assert sink.getvalue() == CONTENT


# --- what a server can do wrong ------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("lost", [1, 4, 10, None], ids=["byte", "checksum", "more", "all"])
def test_an_object_that_is_cut_has_another_digest(codec: Codec, lost: int | None) -> None:
    stored = codec.compress(CONTENT)
    with pytest.raises(HashMismatch) as caught:
        receive(ref_for(stored, codec), stored[: -lost if lost else 0])
    assert "/f" in str(caught.value)


@BOTH
def test_an_object_that_goes_on_is_refused_before_its_end(codec: Codec) -> None:
    stored = codec.compress(CONTENT)
    receiver = ObjectReceiver(ref_for(stored, codec), NullSink())
    receiver.write(stored)
    with pytest.raises(CodecError) as caught:
        receiver.write(b"\0")
    assert "/f" in str(caught.value)


@BOTH
def test_another_object_is_refused(codec: Codec) -> None:
    other = codec.compress(CONTENT[::-1])
    with pytest.raises(HashMismatch, match=str(Algorithm.SHA1.digest(other))):
        receive(ref_for(codec.compress(CONTENT), codec), other)


@BOTH
@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.999])
def test_one_wrong_bit_is_refused(codec: Codec, position: float) -> None:
    stored = codec.compress(CONTENT)
    damaged = bytearray(stored)
    damaged[int(position * len(stored))] ^= 0x10
    with pytest.raises((HashMismatch, CodecError)):
        receive(ref_for(stored, codec), bytes(damaged))


def test_the_same_digest_under_another_algorithm_is_refused() -> None:
    stored = Codec.ZLIB.compress(CONTENT)
    wrong = ObjectRef(Algorithm.RMD160.digest(stored))
    assert receive(wrong, stored) == CONTENT
    with pytest.raises(HashMismatch):
        receive(ObjectRef(type(wrong.digest)(Algorithm.SHA1, wrong.digest.raw)), stored)


# --- what a publisher can do wrong: the digest fits ---------------------------------------


@BOTH
@pytest.mark.parametrize("more", [-1, 1])
def test_content_of_another_size_than_declared_is_refused(codec: Codec, more: int) -> None:
    stored = codec.compress(CONTENT)
    with pytest.raises(CodecError, match="declared"):
        receive(ref_for(stored, codec, size=len(CONTENT) + more), stored)


@BOTH
def test_content_beyond_the_limit_is_refused_where_no_size_is_declared(codec: Codec) -> None:
    stored = codec.compress(CONTENT)
    ref = ref_for(stored, codec, size=None, limit=len(CONTENT) - 1)
    with pytest.raises(CodecError, match="than declared"):
        receive(ref, stored)


def test_a_stream_that_was_published_cut_is_refused() -> None:
    stored = Codec.ZLIB.compress(CONTENT)[:-1]
    with pytest.raises(CodecError, match="ends early"):
        receive(ref_for(stored), stored)


def test_garbage_that_was_published_is_refused() -> None:
    with pytest.raises(CodecError, match="damaged"):
        receive(ref_for(b"garbage"), b"garbage")


@pytest.mark.parametrize("step", [1 << 10, 1 << 30])
def test_bytes_published_after_the_end_of_the_stream_are_refused(step: int) -> None:
    stored = Codec.ZLIB.compress(CONTENT) + b"hidden"
    with pytest.raises(CodecError, match="follow the end"):
        receive(ref_for(stored), stored, step)


def test_a_stream_of_empty_blocks_does_not_go_on_for_ever() -> None:
    receiver = ObjectReceiver(ref_for(b"", size=1000), NullSink())
    receiver.write(zlib.compress(b"", 0)[:2])
    nothing = b"\0\0\0\xff\xff" * 13_000
    receiver.write(nothing)
    with pytest.raises(CodecError, match="far more"):
        receiver.write(nothing)


@pytest.mark.parametrize("size", [32 * MIB, None])
def test_a_bomb_is_inflated_in_little_memory(size: int | None) -> None:
    stored = zlib.compress(bytes(32 * MIB), 9)
    receiver = ObjectReceiver(ref_for(stored, size=size), NullSink())
    tracemalloc.start()
    receiver.write(stored)
    receiver.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert receiver.content == 32 * MIB
    assert peak < 8 * MIB


def test_errors_are_those_after_which_another_server_is_asked() -> None:
    assert issubclass(HashMismatch, VerificationError)
    assert issubclass(CodecError, FormatError)


def test_an_error_of_the_sink_passes_unchanged() -> None:
    class Full(NullSink):
        def write(self, data: bytes) -> None:
            raise CacheFull("no space")

    stored = Codec.ZLIB.compress(CONTENT)
    with pytest.raises(CacheFull):
        ObjectReceiver(ref_for(stored), Full()).write(stored)


def test_the_kind_is_named_where_an_object_is_refused() -> None:
    ref = ObjectRef(Algorithm.SHA1.digest(b""), ObjectKind.CATALOG, label="catalog")
    with pytest.raises(HashMismatch) as caught:
        receive(ref, Codec.ZLIB.compress(b"x"))
    assert f"{ref.digest}C [catalog]" in str(caught.value)
