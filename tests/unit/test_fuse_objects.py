from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio
import trio.testing
from support.fuse_fakes import FakeStore

from lazyfs.cas.handle import FileHandle
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import FormatError, ObjectMissing
from lazyfs.fuse import objects
from lazyfs.fuse.blocking import Workers
from lazyfs.fuse.objects import ObjectPool, PooledObject


@pytest.fixture
def store() -> Iterator[FakeStore]:
    store = FakeStore()
    yield store
    store.gate.set()


def ref_of(store: FakeStore, content: bytes, *, cached: bool = False) -> ObjectRef:
    return ObjectRef(store.add(content, cached=cached), size=len(content))


async def test_what_is_cached_is_not_fetched(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers())
    pooled = await pool.acquire(ref_of(store, b"x", cached=True))
    assert pooled.handle.pread(1, 0) == b"x"
    assert store.fetched == []


async def test_all_who_ask_at_once_share_one_fetch(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers())
    ref = ref_of(store, b"x" * 100)
    got: list[PooledObject] = []
    store.gate.clear()

    async def reader() -> None:
        got.append(await pool.acquire(ref))

    async with trio.open_nursery() as nursery:
        for _ in range(64):
            nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        store.gate.set()
    assert len(store.fetched) == 1
    assert len(set(map(id, got))) == 1
    assert got[0].users == 64


async def test_a_failed_fetch_reaches_all_who_wait_and_is_not_remembered(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers())
    ref = ref_of(store, b"x")
    store.error = ObjectMissing("gone")
    errors: list[Exception] = []
    store.gate.clear()

    async def reader() -> None:
        with pytest.raises(ObjectMissing) as caught:
            await pool.acquire(ref)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        store.gate.set()
    assert len(errors) == 8
    assert len(store.fetched) == 1
    store.error = None
    assert (await pool.acquire(ref)).handle.size == 1


async def test_a_cancelled_leader_leaves_nothing_behind(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers())
    ref = ref_of(store, b"x")
    store.gate.clear()
    with trio.move_on_after(0.01):
        await pool.acquire(ref)
    store.gate.set()
    assert len(pool) == 0
    assert (await pool.acquire(ref)).users == 1


async def test_a_waiter_takes_over_from_a_cancelled_leader(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers())
    ref = ref_of(store, b"x")
    store.gate.clear()
    got: list[PooledObject] = []

    async def leader(scope: trio.CancelScope) -> None:
        with scope:
            await pool.acquire(ref)

    async def waiter() -> None:
        got.append(await pool.acquire(ref))

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leader, scope)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(waiter)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        store.gate.set()
    assert len(got) == 1


async def test_dead_servers_do_not_keep_cached_objects_from_being_opened(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers())
    cached = ref_of(store, b"cached", cached=True)
    missing = [ref_of(store, b"%d" % number) for number in range(200)]
    store.gate.clear()
    async with trio.open_nursery() as nursery:
        for ref in missing:
            nursery.start_soon(pool.acquire, ref)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert (await pool.acquire(cached)).handle.size == 6
        store.gate.set()


async def test_objects_without_users_stay_open_for_a_while(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers(), idle=2)
    refs = [ref_of(store, b"%d" % number) for number in range(4)]
    for ref in refs:
        pool.release(await pool.acquire(ref))
    assert len(pool) == 2
    assert store.open_handles == 2
    assert pool.acquire_now(refs[0]) is None
    assert pool.acquire_now(refs[3]) is not None


async def test_objects_in_use_are_not_closed(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers(), idle=0)
    pooled = await pool.acquire(ref_of(store, b"x"))
    other = await pool.acquire(ref_of(store, b"y"))
    pool.release(other)
    assert pooled.handle.fileno() >= 0
    assert other.handle.fileno() == -1
    pool.release(pooled)
    assert store.open_handles == 0


async def test_closing_idle_objects_spares_the_others(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers())
    used = await pool.acquire(ref_of(store, b"x"))
    pool.release(await pool.acquire(ref_of(store, b"y")))
    pool.close_idle()
    assert len(pool) == 1
    assert used.handle.fileno() >= 0


async def test_a_pool_is_crowded_by_objects_with_users_alone(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers(), may_hold=lambda: 2)
    used = [await pool.acquire(ref_of(store, b"%d" % number)) for number in range(2)]
    pool.release(await pool.acquire(ref_of(store, b"idle")))
    assert not pool.is_crowded
    used.append(await pool.acquire(ref_of(store, b"one more")))
    assert pool.is_crowded
    pool.release(used.pop())
    assert not pool.is_crowded


async def test_who_claims_another_size_is_not_given_what_is_open(store: FakeStore) -> None:
    pool = ObjectPool(store, Workers())
    ref = ref_of(store, b"0123456789")
    honest = await pool.acquire(ref)
    other = await pool.acquire(replace(ref, size=4))
    assert honest is not other


async def test_idle_objects_that_are_in_memory_alone_are_few(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "IDLE_MEMORY", 100)
    pool = ObjectPool(store, Workers())
    for number in range(5):
        pool.release(await pool.acquire(ref_of(store, b"%d" % number * 40)))
    assert len(pool) == 2


def test_memory_is_read_at_once() -> None:
    pooled = PooledObject("key", FileHandle.from_bytes(b"0123456789"))
    buffer = memoryview(bytearray(4))
    assert pooled.read_now(buffer, 3) == 4
    assert bytes(buffer) == b"3456"
    assert pooled.read_now(buffer, 8) == 2


def test_an_object_that_ends_too_early_is_an_error() -> None:
    pooled = PooledObject("key", FileHandle.from_bytes(b"0123"))
    with pytest.raises(FormatError, match="shorter than declared"):
        pooled.read_all(memoryview(bytearray(5)), 0)
