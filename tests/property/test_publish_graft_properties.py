from __future__ import annotations

import contextlib
import io
import itertools

from hypothesis import given
from hypothesis import strategies as st

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import PublishError
from lazyfs.publish.graft import Graft, dump_graft, make_graft, parse_graft
from lazyfs.repository.catalog import Chunk

ALGORITHMS = (Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128)
codecs = st.sampled_from([None, Codec.ZLIB, Codec.NONE])


@st.composite
def grafts(draw: st.DrawFn) -> Graft:
    algorithm = draw(st.sampled_from(ALGORITHMS))
    digests = st.binary(min_size=20, max_size=20).filter(any).map(lambda d: Digest(algorithm, d))
    lengths = draw(st.lists(st.integers(1, 1 << 40), max_size=6))
    starts = itertools.accumulate(lengths, initial=0)
    chunks = tuple(Chunk(s, n, draw(digests)) for s, n in zip(starts, lengths, strict=False))
    size = sum(lengths) if chunks else draw(st.integers(0, 1 << 60))
    whole = draw(st.one_of(st.none(), digests)) if chunks else draw(digests)
    return Graft(size, whole, draw(codecs), chunks)


@given(grafts())
def test_what_is_dumped_parses_to_the_same(graft: Graft) -> None:
    assert parse_graft(dump_graft(graft), b"/x") == graft


@given(st.binary(max_size=300), st.integers(0, 100), st.sampled_from(ALGORITHMS))
def test_a_graft_that_was_made_covers_its_content(
    content: bytes, chunk_size: int, algorithm: Algorithm
) -> None:
    graft = make_graft(io.BytesIO(content), chunk_size, algorithm=algorithm)
    assert parse_graft(dump_graft(graft), b"/x") == graft
    assert graft.size == len(content)
    for chunk in graft.chunks:
        piece = content[chunk.offset : chunk.offset + chunk.size]
        assert algorithm.digest(piece) == chunk.digest
    if not graft.chunks:
        assert graft.digest == algorithm.digest(content)


pieces = st.sampled_from(
    [b"", b"0", b",", b"=", b"\n", b"P", b"#", b" ", b"9" * 30, b"a" * 40, b"-rmd160", b"\xff\0"]
)


@given(grafts(), st.data())
def test_a_damaged_marker_is_refused_or_means_what_is_read(
    graft: Graft, data: st.DataObject
) -> None:
    text = dump_graft(graft)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 60, len(text))))
    damaged = text[:start] + data.draw(pieces) + text[end:]
    with contextlib.suppress(PublishError):
        found = parse_graft(damaged, b"/x")
        assert parse_graft(dump_graft(found), b"/x") == found


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_an_orderly_way(data: bytes) -> None:
    with contextlib.suppress(PublishError):
        parse_graft(data, b"/x")
