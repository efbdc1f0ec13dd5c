from __future__ import annotations

import hashlib
import io

import pytest

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import PublishError
from lazyfs.publish import graft as module
from lazyfs.publish.content import StoredFile
from lazyfs.publish.graft import (
    CHUNK_SIZE,
    Graft,
    dump_graft,
    grafted_name,
    make_graft,
    marker_name,
    parse_graft,
)
from lazyfs.repository.catalog import Chunk

A, B, C, D = (digit * 40 for digit in "abcd")
NULL = "0" * 40


def sha1(data: bytes) -> Digest:
    return Digest(Algorithm.SHA1, hashlib.sha1(data).digest())


def digest(digits: str) -> Digest:
    return Digest(Algorithm.SHA1, bytes.fromhex(digits))


# --- reading markers --------------------------------------------------------------------------


def test_a_marker_of_a_whole_file() -> None:
    text = f"size=13\nchecksum={A}\ncompression=zlib\n"
    graft = parse_graft(text.encode(), b"/x")
    assert graft == Graft(13, digest(A), Codec.ZLIB)
    assert graft.stored(Codec.NONE) == StoredFile(13, digest(A), (), Codec.ZLIB)


def test_a_marker_of_chunks() -> None:
    # As ``cvmfs_swissknife graft -c 1`` writes it: without ``-b`` the whole has no checksum.
    text = (
        f"size=2500000\nchecksum={NULL}\ncompression=none\n"
        f"chunk_offsets=0,1048576,2097152\nchunk_checksums={A},{B},{C}\n"
    )
    graft = parse_graft(text.encode(), b"/x")
    chunks = (
        Chunk(0, 1048576, digest(A)),
        Chunk(1048576, 1048576, digest(B)),
        Chunk(2097152, 402848, digest(C)),
    )
    assert graft == Graft(2500000, None, Codec.NONE, chunks)
    assert graft.stored(Codec.ZLIB, external=True) == StoredFile(
        2500000, None, chunks, Codec.NONE, external=True
    )


def test_chunks_count_where_the_whole_is_named_as_well() -> None:
    text = f"size=3\nchecksum={D}\nchunk_offsets=0,1\nchunk_checksums={A},{B}\n"
    graft = parse_graft(text.encode(), b"/x")
    assert graft.digest == digest(D)
    assert graft.stored(Codec.NONE).digest is None
    assert len(graft.stored(Codec.NONE).chunks) == 2


def test_without_compression_the_repositorys_counts() -> None:
    graft = parse_graft(f"size=1\nchecksum={A}".encode(), b"/x")
    assert graft.codec is None
    assert graft.stored(Codec.ZLIB).codec is Codec.ZLIB
    assert graft.stored(Codec.NONE).codec is Codec.NONE


@pytest.mark.parametrize(
    "text",
    [
        f"# made by hand\n\n  size = 1 \r\n\tchecksum={A}\n#\xff\ncompression=default\nlater=key",
        f"compression=zlib\nchecksum={A}\nsize=1",
        f"size=1\nchecksum={A}\ncompression=zlib\nchunk_offsets=\nchunk_checksums=\n",
    ],
    ids=["comments, spaces and unknown keys", "any order", "empty lists"],
)
def test_markers_may_be_written_freely(text: str) -> None:
    assert parse_graft(text.encode("latin-1"), b"/x") == Graft(1, digest(A), Codec.ZLIB)


def test_the_letter_of_chunks_may_stand_at_their_checksums() -> None:
    text = f"size=2\nchecksum={NULL}\nchunk_offsets=0, 1\nchunk_checksums={A}P, {B}P\n"
    assert [chunk.digest for chunk in parse_graft(text.encode(), b"/x").chunks] == [
        digest(A),
        digest(B),
    ]


def test_other_algorithms_are_named_by_their_suffix() -> None:
    text = f"size=2\nchecksum={NULL}-rmd160\nchunk_offsets=0\nchunk_checksums={A}-rmd160P\n"
    graft = parse_graft(text.encode(), b"/x")
    assert graft.chunks == (Chunk(0, 2, Digest(Algorithm.RMD160, bytes.fromhex(A))),)


def test_an_empty_file_can_be_grafted() -> None:
    assert parse_graft(f"size=0\nchecksum={A}".encode(), b"/x") == Graft(0, digest(A))


MALFORMED = {
    "empty": "",
    "no size": f"checksum={A}",
    "no checksum": "size=1",
    "no checksum but chunks": f"size=1\nchunk_offsets=0\nchunk_checksums={A}",
    "null checksum without chunks": f"size=1\nchecksum={NULL}",
    "size is no number": f"size=one\nchecksum={A}",
    "size is negative": f"size=-1\nchecksum={A}",
    "size is empty": f"size=\nchecksum={A}",
    "size is fractional": f"size=1.5\nchecksum={A}",
    "size beyond 64 bits": f"size=9223372036854775807\nchecksum={A}",
    "size of many digits": f"size={'9' * 5000}\nchecksum={A}",
    "checksum too short": "size=1\nchecksum=abc",
    "checksum in upper case": f"size=1\nchecksum={'A' * 40}",
    "checksum of md5": f"size=1\nchecksum={'a' * 32}",
    "checksum with a letter": f"size=1\nchecksum={A}P",
    "line without equals sign": f"size=1\nchecksum={A}\nzlib",
    "size twice": f"size=1\nsize=2\nchecksum={A}",
    "unknown compression": f"size=1\nchecksum={A}\ncompression=lz4",
    "empty compression": f"size=1\nchecksum={A}\ncompression=",
    "offsets without checksums": f"size=1\nchecksum={A}\nchunk_offsets=0",
    "checksums without offsets": f"size=1\nchecksum={A}\nchunk_checksums={A}",
    "fewer checksums": f"size=2\nchecksum={A}\nchunk_offsets=0,1\nchunk_checksums={A}",
    "offset is no number": f"size=2\nchecksum={A}\nchunk_offsets=0,x\nchunk_checksums={A},{B}",
    "empty offset": f"size=2\nchecksum={A}\nchunk_offsets=0,\nchunk_checksums={A},{B}",
    "first offset": f"size=2\nchecksum={A}\nchunk_offsets=1\nchunk_checksums={A}",
    "equal offsets": f"size=2\nchecksum={A}\nchunk_offsets=0,0\nchunk_checksums={A},{B}",
    "falling offsets": f"size=9\nchecksum={A}\nchunk_offsets=0,5,3\nchunk_checksums={A},{B},{C}",
    "offset at the end": f"size=2\nchecksum={A}\nchunk_offsets=0,2\nchunk_checksums={A},{B}",
    "offset beyond the end": f"size=2\nchecksum={A}\nchunk_offsets=0,9\nchunk_checksums={A},{B}",
    "chunk of an empty file": f"size=0\nchecksum={A}\nchunk_offsets=0\nchunk_checksums={A}",
    "bad chunk checksum": f"size=2\nchecksum={A}\nchunk_offsets=0,1\nchunk_checksums={A},x",
    "null chunk checksum": f"size=2\nchecksum={A}\nchunk_offsets=0,1\nchunk_checksums={A},{NULL}",
    "mixed algorithms": f"size=1\nchecksum={A}\nchunk_offsets=0\nchunk_checksums={A}-rmd160",
    "mixed algorithms of chunks": (
        f"size=2\nchecksum={NULL}\nchunk_offsets=0,1\nchunk_checksums={A},{A}-shake128"
    ),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_marker_is_refused_by_its_path(text: str) -> None:
    with pytest.raises(PublishError, match="graft marker") as caught:
        parse_graft(text.encode(), b"/d/.cvmfsgraft-x")
    assert caught.value.path == "/d/.cvmfsgraft-x"


def test_a_marker_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GRAFT_BYTES", 100)
    text = f"size=1\nchecksum={A}\n".encode()
    parse_graft(text.ljust(100, b"#"), b"/x")
    with pytest.raises(PublishError, match="longer than 100 bytes"):
        parse_graft(text.ljust(101, b"#"), b"/x")


# --- names ------------------------------------------------------------------------------------


def test_markers_lie_beside_their_files() -> None:
    assert marker_name(b"a\xff") == b".cvmfsgraft-a\xff"
    assert grafted_name(b".cvmfsgraft-a\xff") == b"a\xff"
    assert grafted_name(b".cvmfsgraft") is None
    assert grafted_name(b"x.cvmfsgraft-a") is None


# --- making grafts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "codec", "algorithm", "checksum"),
    [
        # What upstream's own tests expect of its tool.
        (b"Hello World!\n", Codec.ZLIB, Algorithm.SHA1, "c2b7b4181ba9ff6411881a613301a76458cb9666"),
        (b"", Codec.ZLIB, Algorithm.SHA1, "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"),
        (
            b"abc",
            Codec.NONE,
            Algorithm.SHAKE128,
            "5881092dd818bf5cf8a3ddb793fbcba74097d5c5-shake128",
        ),
    ],
)
def test_grafts_are_those_of_the_reference_tool(
    content: bytes, codec: Codec, algorithm: Algorithm, checksum: str
) -> None:
    graft = make_graft(io.BytesIO(content), codec=codec, algorithm=algorithm)
    assert dump_graft(graft).decode() == (
        f"size={len(content)}\nchecksum={checksum}\ncompression={codec.name.lower()}\n"
    )


def test_long_content_is_cut_at_fixed_offsets() -> None:
    content = bytes(range(256)) * 10
    graft = make_graft(io.BytesIO(content), 1000)
    assert graft == Graft(
        2560,
        None,
        Codec.NONE,
        (
            Chunk(0, 1000, sha1(content[:1000])),
            Chunk(1000, 1000, sha1(content[1000:2000])),
            Chunk(2000, 560, sha1(content[2000:])),
        ),
    )
    assert dump_graft(graft).decode() == (
        f"size=2560\nchecksum={NULL}\ncompression=none\nchunk_offsets=0,1000,2000\n"
        f"chunk_checksums={','.join(str(chunk.digest) for chunk in graft.chunks)}\n"
    )


@pytest.mark.parametrize(("size", "chunks"), [(0, 0), (999, 0), (1000, 0), (1001, 2), (2000, 2)])
def test_no_chunk_is_empty_and_one_alone_is_the_whole(size: int, chunks: int) -> None:
    content = bytes(size)
    graft = make_graft(io.BytesIO(content), 1000)
    assert len(graft.chunks) == chunks
    assert (graft.digest == sha1(content)) is (chunks == 0)
    assert sum(chunk.size for chunk in graft.chunks) == (size if chunks else 0)


def test_content_need_not_be_cut() -> None:
    content = bytes(3000)
    assert make_graft(io.BytesIO(content), 0) == Graft(3000, sha1(content), Codec.NONE)


def test_compressed_content_is_never_cut() -> None:
    assert make_graft(io.BytesIO(bytes(3000)), 1000, codec=Codec.ZLIB).chunks == ()


class Dribble(io.RawIOBase):
    """Gives less than it is asked for, as a pipe does, and remembers the most it was asked."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.asked = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self.asked = max(self.asked, size)
        return self._content.read(min(size, 7))


def test_content_is_read_in_pieces_from_a_pipe_as_well() -> None:
    content = bytes(range(256)) * 20
    pipe = Dribble(content)
    graft = make_graft(pipe, 1000)  # type: ignore[arg-type]
    assert graft == make_graft(io.BytesIO(content), 1000)
    whole = Dribble(content)
    assert make_graft(whole).digest == sha1(content)  # type: ignore[arg-type]
    assert 0 < whole.asked < CHUNK_SIZE
