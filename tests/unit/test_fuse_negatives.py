from __future__ import annotations

from support.clock import FakeClock

from lazyfs.fuse.negatives import Negatives


def test_names_are_taken_once() -> None:
    negatives = Negatives(FakeClock())
    assert negatives.note(1, b"a", 60)
    assert negatives.note(1, b"a", 60)
    assert negatives.note(2, b"a", 60)
    assert negatives.take() == [(1, b"a"), (2, b"a")]
    assert negatives.take() == []


def test_a_full_table_lets_the_kernel_remember_no_more() -> None:
    negatives = Negatives(FakeClock(), limit=2)
    assert negatives.note(1, b"a", 60)
    assert negatives.note(1, b"b", 60)
    assert not negatives.note(1, b"c", 60)
    assert len(negatives) == 2


def test_names_that_the_kernel_has_forgotten_make_room() -> None:
    clock = FakeClock()
    negatives = Negatives(clock, limit=2)
    negatives.note(1, b"a", 10)
    negatives.note(1, b"b", 60)
    clock.advance(30)
    assert negatives.note(1, b"c", 60)
    assert negatives.take() == [(1, b"b"), (1, b"c")]
