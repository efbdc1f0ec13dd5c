from __future__ import annotations

import trio
import trio.testing

from lazyfs.fuse.buffers import BUFFER_BYTES, BUFFERS, Buffers


async def test_a_view_has_the_size_that_was_asked_for() -> None:
    buffers = Buffers()
    for size in (0, 1, 4096, BUFFER_BYTES, BUFFER_BYTES + 1):
        assert len(await buffers.take(size)) == size


async def test_what_is_given_back_is_lent_again_and_what_is_lent_is_not() -> None:
    buffers = Buffers()
    first = await buffers.take(10)
    buffers.give(first)
    second = await buffers.take(20)
    assert second.obj is first.obj
    assert (await buffers.take(20)).obj is not first.obj


async def test_larger_ones_are_not_kept() -> None:
    buffers = Buffers()
    large = await buffers.take(BUFFER_BYTES + 1)
    buffers.give(large)
    assert (await buffers.take(BUFFER_BYTES + 1)).obj is not large.obj


async def test_when_all_are_lent_the_next_waits_for_one() -> None:
    buffers = Buffers()
    lent = [await buffers.take(1) for _ in range(BUFFERS)]
    late: list[memoryview] = []

    async def wait() -> None:
        late.append(await buffers.take(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert late == []
        buffers.give(lent[3])
        await trio.testing.wait_all_tasks_blocked()
        assert late[0].obj is lent[3].obj
