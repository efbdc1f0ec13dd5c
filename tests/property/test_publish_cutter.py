from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyfs.publish import cutter_py
from lazyfs.publish.cutter import ChunkSizes, Cutter, native_cut_marks

sizes = st.tuples(st.integers(32, 200), st.integers(1, 300), st.integers(1, 500)).map(
    lambda steps: ChunkSizes(*itertools.accumulate(steps))
)
# Random bytes make marks; runs of one byte reach the forced cuts and the constant values.
contents = st.one_of(
    st.binary(max_size=3000),
    st.tuples(st.binary(min_size=1, max_size=8), st.integers(0, 800)).map(lambda t: t[0] * t[1]),
    st.tuples(st.binary(max_size=8), st.integers(0, 6000)).map(
        lambda t: hashlib.shake_128(t[0]).digest(t[1])
    ),
)


@given(contents, sizes)
def test_twins_cut_alike(data: bytes, bounds: ChunkSizes) -> None:
    native = native_cut_marks()
    if native is None:
        pytest.skip("the C extension is not built")
    twins = [Cutter(bounds, twin).feed(data) for twin in (native, cutter_py.cut_marks)]
    assert twins[0] == twins[1]


@given(contents, sizes, st.lists(st.integers(0, 6000), max_size=8))
def test_splits_of_the_input_do_not_matter(
    data: bytes, bounds: ChunkSizes, splits: list[int]
) -> None:
    borders = [0, *sorted(min(s, len(data)) for s in splits), len(data)]
    cutter = Cutter(bounds)
    cuts = [cut for a, b in itertools.pairwise(borders) for cut in cutter.feed(data[a:b])]
    assert cuts == Cutter(bounds).feed(data)


@given(contents, sizes)
def test_chunks_stay_within_their_bounds(data: bytes, bounds: ChunkSizes) -> None:
    cuts = Cutter(bounds).feed(data)
    gaps = [b - a for a, b in itertools.pairwise([0, *cuts])]
    assert all(bounds.minimum <= gap <= bounds.maximum for gap in gaps)
    assert len(data) - (cuts[-1] if cuts else 0) <= bounds.maximum
