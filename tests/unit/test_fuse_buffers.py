from __future__ import annotations

from lazyfs.fuse.buffers import BUFFER_BYTES, KEPT_BUFFERS, Buffers


def test_a_view_has_the_size_that_was_asked_for() -> None:
    buffers = Buffers()
    for size in (0, 1, 4096, BUFFER_BYTES, BUFFER_BYTES + 1):
        assert len(buffers.take(size)[1]) == size


def test_what_is_given_back_is_lent_again() -> None:
    buffers = Buffers()
    buffer, _ = buffers.take(10)
    buffers.give(buffer)
    assert buffers.take(20)[0] is buffer
    assert buffers.take(20)[0] is not buffer


def test_what_is_lent_is_not_lent_to_another() -> None:
    buffers = Buffers()
    assert buffers.take(10)[0] is not buffers.take(10)[0]


def test_memory_is_bounded() -> None:
    buffers = Buffers()
    lent = [buffers.take(1)[0] for _ in range(2 * KEPT_BUFFERS)]
    for buffer in lent:
        buffers.give(buffer)
    again = {id(buffers.take(1)[0]) for _ in range(KEPT_BUFFERS)}
    assert again <= {id(buffer) for buffer in lent}
    fresh = buffers.take(1)[0]
    assert all(fresh is not buffer for buffer in lent)


def test_larger_ones_are_not_kept() -> None:
    buffers = Buffers()
    large, _ = buffers.take(BUFFER_BYTES + 1)
    buffers.give(large)
    assert buffers.take(BUFFER_BYTES + 1)[0] is not large
