from __future__ import annotations

import array
import io
import os

import pytest
from support.memory_store import MemoryStore

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.store import ExternalLocation
from lazyfs.errors import CodecError, FormatError, ObjectMissing
from lazyfs.repository.catalog import Chunk
from lazyfs.repository.extents import chunk_extents, whole_extents
from lazyfs.repository.file import OPEN_OBJECTS, RepositoryFile
from lazyfs.repository.node import Node

DIGEST = Algorithm.SHA1.digest(b"content")
NODE = Node(b"/f", 0o100644, 10, 0, 0, 0, 1, digest=DIGEST)
CHUNKED = NODE._replace(digest=None, chunked=True)


def chunk(offset: int, size: int) -> Chunk:
    return Chunk(offset, size, DIGEST)


def chunked_file(
    store: MemoryStore, pieces: list[bytes], codec: Codec = Codec.ZLIB
) -> RepositoryFile:
    chunks, offset = [], 0
    for piece in pieces:
        chunks.append(Chunk(offset, len(piece), store.put(piece, ObjectKind.CHUNK, codec)))
        offset += len(piece)
    node = CHUNKED._replace(size=offset, codec=codec)
    return RepositoryFile(store, chunk_extents(node, chunks), offset, name=b"/f")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


# --- extents -------------------------------------------------------------------------------


def test_a_whole_file_is_one_extent() -> None:
    (extent,) = whole_extents(NODE)
    assert (extent.offset, extent.size) == (0, 10)
    assert (extent.ref.digest, extent.ref.kind, extent.ref.size) == (DIGEST, ObjectKind.FILE, 10)
    assert extent.ref.label == "/f"
    assert extent.ref.external is None


def test_an_empty_file_needs_no_object() -> None:
    assert whole_extents(NODE._replace(size=0)) == ()
    assert whole_extents(NODE._replace(size=0, digest=None)) == ()


def test_content_without_an_object_is_an_error() -> None:
    with pytest.raises(FormatError) as caught:
        whole_extents(NODE._replace(digest=None))
    assert caught.value.path == "/f"


def test_an_external_file_lies_at_its_path() -> None:
    node = NODE._replace(path=b"/a\xff/f", external=True, codec=Codec.NONE)
    (extent,) = whole_extents(node)
    assert extent.ref.external == ExternalLocation(b"/a\xff/f")
    chunks = chunk_extents(node._replace(chunked=True), [chunk(0, 4), chunk(4, 6)])
    assert [e.ref.external for e in chunks] == [
        ExternalLocation(b"/a\xff/f", 0, 4),
        ExternalLocation(b"/a\xff/f", 4, 6),
    ]


def test_compressed_external_chunks_are_refused() -> None:
    with pytest.raises(FormatError, match="external"):
        chunk_extents(CHUNKED._replace(external=True), [chunk(0, 10)])


def test_chunks_win_over_a_bulk_object() -> None:
    (extent,) = chunk_extents(NODE._replace(chunked=True), [chunk(0, 10)])
    assert extent.ref.kind is ObjectKind.CHUNK
    assert extent.ref.label == "Part of /f"


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk(1, 9)],
        [chunk(0, 9)],
        [chunk(0, 11)],
        [chunk(0, 4), chunk(5, 5)],
        [chunk(0, 6), chunk(5, 5)],
        [chunk(0, 5), chunk(0, 5)],
        [chunk(0, 10), chunk(10, 0)],
        [chunk(0, 12), chunk(12, -2)],
        [chunk(-1, 11)],
    ],
    ids=["none", "late", "short", "long", "gap", "overlap", "twice", "empty", "negative", "before"],
)
def test_chunks_that_do_not_tile_the_file_are_refused(chunks: list[Chunk]) -> None:
    with pytest.raises(FormatError) as caught:
        chunk_extents(CHUNKED, chunks)
    assert caught.value.path == "/f"


# --- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", list(Codec))
def test_a_chunked_file_reads_as_one_stream(store: MemoryStore, codec: Codec) -> None:
    pieces = [b"a" * 10, b"b", b"c" * 100, b"d" * 7]
    with chunked_file(store, pieces, codec) as file:
        assert file.read() == b"".join(pieces)
        assert file.read() == b""
        assert file.tell() == 118


def test_a_buffered_reader_crosses_chunks(store: MemoryStore) -> None:
    with io.BufferedReader(chunked_file(store, [b"one\ntw", b"o\nthree"])) as file:
        assert file.readlines() == [b"one\n", b"two\n", b"three"]


def test_positions_are_those_of_any_file(store: MemoryStore) -> None:
    with chunked_file(store, [b"0123", b"456789"]) as file:
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        assert file.seek(3) == 3
        assert file.read(1) == b"3"
        assert file.seek(1, os.SEEK_CUR) == 5
        assert file.read(100) == b"56789"
        assert file.seek(-2, os.SEEK_END) == 8
        assert file.read() == b"89"
        assert file.seek(50) == 50
        assert file.read() == b""
        with pytest.raises(ValueError, match="seek"):
            file.seek(-1)
        with pytest.raises(ValueError, match="seek"):
            file.seek(0, 9)


@pytest.mark.parametrize(
    ("size", "offset", "expected"),
    [
        (4, 0, b"0123"),
        (10, 0, b"0123"),  # from one object only
        (10, 3, b"3"),
        (10, 4, b"456789"),
        (2, 8, b"89"),
        (5, 10, b""),
        (5, 1 << 70, b""),
        (0, 2, b""),
    ],
)
def test_pread(store: MemoryStore, size: int, offset: int, expected: bytes) -> None:
    with chunked_file(store, [b"0123", b"456789"]) as file:
        assert file.pread(size, offset) == expected
        assert file.tell() == 0
        with pytest.raises(ValueError, match="negative"):
            file.pread(1, -1)


def test_reading_into_wider_items_counts_bytes(store: MemoryStore) -> None:
    buffer = array.array("I", [0, 0])
    with chunked_file(store, [b"12345678"]) as file:
        assert file.readinto(memoryview(buffer)) == 8
    assert buffer.tobytes() == b"12345678"


def test_objects_are_fetched_when_they_are_read(store: MemoryStore) -> None:
    with chunked_file(store, [bytes([n]) * 5 for n in range(10)]) as file:
        assert store.opened.total() == 0
        file.pread(1, 22)
        file.pread(5, 20)
        assert store.opened.total() == 1


def test_only_a_few_objects_stay_open(store: MemoryStore) -> None:
    with chunked_file(store, [bytes([n]) * 5 for n in range(10)]) as file:
        file.read()
        assert len(file._handles) == OPEN_OBJECTS
        handles = list(file._handles.values())
    assert [handle.fileno() for handle in handles] == [-1] * OPEN_OBJECTS


def test_a_closed_file_says_so(store: MemoryStore) -> None:
    file = chunked_file(store, [b"x"])
    file.close()
    file.close()
    calls = (file.read, file.tell, lambda: file.seek(0), lambda: file.pread(1, 0))
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    assert store.opened.total() == 0


def test_an_empty_file(store: MemoryStore) -> None:
    with RepositoryFile(store, (), 0, name=b"/e") as file:
        assert file.read() == b""
        assert file.pread(10, 0) == b""


def test_a_missing_object_is_an_error_each_time(store: MemoryStore) -> None:
    node = NODE._replace(digest=Digest.parse("5" * 40))
    with RepositoryFile(store, whole_extents(node), 10, name=b"/f") as file:
        for _ in range(2):
            with pytest.raises(ObjectMissing) as caught:
                file.read(1)
            assert "/f" in (caught.value.object or "")


@pytest.mark.parametrize("declared", [9, 11])
def test_a_size_that_lies_gives_no_bytes(store: MemoryStore, declared: int) -> None:
    node = NODE._replace(digest=store.put(b"0123456789"), size=declared)
    with (
        RepositoryFile(store, whole_extents(node), declared, name=b"/f") as file,
        pytest.raises(CodecError),
    ):
        file.read()


def test_external_content_is_read_by_range(store: MemoryStore) -> None:
    store.external[b"/f"] = b"0123456789"
    chunks = [
        Chunk(0, 4, Algorithm.SHA1.digest(b"0123")),
        Chunk(4, 6, Algorithm.SHA1.digest(b"456789")),
    ]
    node = CHUNKED._replace(external=True, codec=Codec.NONE)
    with RepositoryFile(store, chunk_extents(node, chunks), 10, name=b"/f") as file:
        assert file.read() == b"0123456789"
