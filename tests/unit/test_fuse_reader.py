from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from support.fuse_fakes import FakeStore
from support.waiting import until

from lazyfs.cas.digest import Digest
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import FormatError, ObjectMissing
from lazyfs.fuse.blocking import Workers
from lazyfs.fuse.buffers import BUFFERS, Buffers
from lazyfs.fuse.objects import ObjectPool
from lazyfs.fuse.prefetch import Prefetcher
from lazyfs.fuse.reader import HELD_OBJECTS, Content, OpenFile
from lazyfs.repository.view import Extent

CHUNK = 1000


@dataclass
class Bench:
    """A file of ten chunks, and what reads it."""

    store: FakeStore
    pool: ObjectPool
    prefetcher: Prefetcher
    file: OpenFile
    content: bytes
    digests: list[Digest]

    async def read(self, offset: int, size: int) -> bytes:
        return bytes(await self.file.read(offset, size))


@pytest.fixture
def bench() -> Iterator[Bench]:
    store, workers = FakeStore(), Workers()
    content = random.Random(1).randbytes(10 * CHUNK - 10)
    pieces = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    digests = [store.add(piece) for piece in pieces]
    extents = [
        Extent(number * CHUNK, len(piece), ObjectRef(digests[number], size=len(piece)))
        for number, piece in enumerate(pieces)
    ]
    pool = ObjectPool(store, workers, idle=16)
    prefetcher = Prefetcher(pool, workers)
    file = OpenFile(Content(b"/f", len(content), extents), pool, workers, prefetcher, 2, Buffers())
    yield Bench(store, pool, prefetcher, file, content, digests)
    store.gate.set()
    file.close()


async def test_any_range_reads_right(bench: Bench) -> None:
    rng = random.Random(2)
    for _ in range(200):
        offset, size = rng.randrange(11 * CHUNK), rng.randrange(3 * CHUNK)
        assert await bench.read(offset, size) == bench.content[offset : offset + size]


async def test_only_what_is_read_is_fetched(bench: Bench) -> None:
    await bench.read(3 * CHUNK + 1, CHUNK)
    assert bench.store.fetched == bench.digests[3:5]


async def test_reading_at_and_behind_the_end_gives_nothing(bench: Bench) -> None:
    assert await bench.read(len(bench.content), 4096) == b""
    assert await bench.read(1 << 40, 4096) == b""
    assert bench.store.fetched == []


async def test_a_read_of_what_was_read_before_needs_no_thread(bench: Bench) -> None:
    await bench.read(0, 10)
    peeked = len(bench.store.peeked)
    assert await bench.read(5, 20) == bench.content[5:25]
    assert len(bench.store.peeked) == peeked


async def test_few_objects_stay_open(bench: Bench) -> None:
    for number in range(10):
        await bench.read(number * CHUNK, 1)
    bench.pool.close_idle()
    assert len(bench.pool) == HELD_OBJECTS
    bench.file.close()
    bench.pool.close_idle()
    assert bench.store.open_handles == 0


async def test_where_descriptors_run_short_no_object_is_held(bench: Bench) -> None:
    pool = ObjectPool(bench.store, Workers(), idle=0, may_hold=lambda: 0)
    file = OpenFile(bench.file.content, pool, Workers(), bench.prefetcher, 0, Buffers())
    assert bytes(await file.read(CHUNK - 10, 20)) == bench.content[CHUNK - 10 : CHUNK + 10]
    assert len(pool) == 0
    assert bench.store.open_handles == 0
    assert bytes(await file.read(0, 5 * CHUNK)) == bench.content[: 5 * CHUNK]


async def test_reads_may_overlap_in_time(bench: Bench) -> None:
    bench.store.gate.clear()
    results: dict[int, bytes] = {}

    async def read(offset: int) -> None:
        results[offset] = await bench.read(offset, 1500)

    async with trio.open_nursery() as nursery:
        for offset in range(0, 8 * CHUNK, 250):
            nursery.start_soon(read, offset)
        await trio.testing.wait_all_tasks_blocked()
        bench.store.gate.set()
    assert all(data == bench.content[at : at + 1500] for at, data in results.items())
    assert len(bench.store.fetched) == len(set(bench.store.fetched))


async def test_a_failed_read_leaves_the_file_usable(bench: Bench) -> None:
    bench.store.error = ObjectMissing("gone")
    with pytest.raises(ObjectMissing):
        await bench.read(0, 10)
    bench.store.error = None
    assert await bench.read(0, 10) == bench.content[:10]


async def test_an_object_that_is_shorter_than_its_extent_is_an_error(bench: Bench) -> None:
    bench.store.remote[bench.digests[0]] = b"short"
    with pytest.raises(FormatError, match="shorter"):
        await bench.read(0, 10)


async def test_a_sequential_reader_finds_the_next_chunks_fetched(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.prefetcher.run)
        await bench.read(0, 100)
        assert bench.store.fetched == bench.digests[:1]
        await bench.read(100, 100)
        await until(lambda: len(bench.store.fetched) >= 3 and len(bench.pool) >= 3)
        assert sorted(bench.store.fetched, key=bench.digests.index) == bench.digests[:3]
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_fetched_ahead_is_no_failure_yet(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.prefetcher.run)
        await bench.read(0, 100)
        bench.store.error = ObjectMissing("gone")
        await bench.read(100, 100)
        await until(lambda: len(bench.store.fetched) >= 3)
        await trio.testing.wait_all_tasks_blocked(0.05)
        bench.store.error = None
        assert await bench.read(CHUNK, 10) == bench.content[CHUNK : CHUNK + 10]
        nursery.cancel_scope.cancel()


async def test_offers_beyond_the_queue_are_declined(bench: Bench) -> None:
    ref = bench.file.content.extents[0].ref
    accepted = 0
    while bench.prefetcher.offer(ref):
        accepted += 1
    assert 0 < accepted < 1000


async def test_who_waits_for_a_server_has_no_buffer(bench: Bench) -> None:
    assert await bench.read(0, 10) == bench.content[:10]
    bench.store.gate.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(2 * BUFFERS):
            nursery.start_soon(bench.read, 5 * CHUNK, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert await bench.read(1, 10) == bench.content[1:11]
        bench.store.gate.set()


async def test_a_failed_read_gives_its_buffer_back(bench: Bench) -> None:
    bench.store.remote[bench.digests[0]] = b"short"
    for _ in range(2 * BUFFERS):
        with pytest.raises(FormatError):
            await bench.read(0, 10)
    assert await bench.read(CHUNK, 10) == bench.content[CHUNK : CHUNK + 10]
