from __future__ import annotations

import pytest

from lazyfs.fuse.readahead import NEAR_BYTES, SequentialReader

MIB = 1 << 20


def test_a_single_read_fetches_nothing_ahead() -> None:
    reader = SequentialReader(4)
    reader.note(0, MIB)
    assert not reader.plan(0, 10)


def test_a_sequential_reader_gets_the_next_extents_each_once() -> None:
    reader = SequentialReader(3)
    reader.note(0, MIB)
    reader.note(MIB, MIB)
    assert list(reader.plan(0, 10)) == [1, 2, 3]
    reader.note(2 * MIB, MIB)
    assert list(reader.plan(0, 10)) == []
    reader.note(3 * MIB, MIB)
    assert list(reader.plan(1, 10)) == [4]
    assert list(reader.plan(5, 10)) == [6, 7, 8]


def test_nothing_is_planned_beyond_the_end() -> None:
    reader = SequentialReader(4)
    reader.note(0, MIB)
    reader.note(MIB, MIB)
    assert list(reader.plan(7, 10)) == [8, 9]
    assert list(reader.plan(9, 10)) == []


def test_reads_in_the_disorder_of_the_kernels_read_ahead_are_sequential() -> None:
    reader = SequentialReader(1)
    reader.note(MIB, MIB)
    reader.note(0, MIB)
    reader.note(2 * MIB, MIB)
    assert list(reader.plan(0, 4)) == [1]


def test_jumps_end_a_sequence() -> None:
    reader = SequentialReader(2)
    reader.note(0, MIB)
    reader.note(MIB, MIB)
    assert list(reader.plan(0, 100)) == [1, 2]
    reader.note(50 * NEAR_BYTES, 4096)
    assert list(reader.plan(50, 100)) == []
    reader.note(10 * NEAR_BYTES, 4096)
    assert list(reader.plan(10, 100)) == []


def test_going_on_after_a_jump_back_plans_again() -> None:
    reader = SequentialReader(2)
    for offset in (50 * NEAR_BYTES, 50 * NEAR_BYTES + MIB, 50 * NEAR_BYTES + 2 * MIB):
        reader.note(offset, MIB)
    assert list(reader.plan(50, 100)) == [51, 52]
    for offset in (10 * NEAR_BYTES, 10 * NEAR_BYTES + MIB, 10 * NEAR_BYTES + 2 * MIB):
        reader.note(offset, MIB)
    assert list(reader.plan(10, 100)) == [11, 12]


@pytest.mark.parametrize("reads", [2, 20])
def test_without_permission_nothing_is_fetched_ahead(reads: int) -> None:
    reader = SequentialReader(0)
    for number in range(reads):
        reader.note(number * MIB, MIB)
    assert not reader.plan(0, 10)
