from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.memory_store import MemoryStore

from lazyfs.cas.cached_store import CachedStore
from lazyfs.cas.codec import Codec
from lazyfs.cas.evictor import MIN_FREED
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cas.store import ObjectRef
from lazyfs.config.settings import CacheSettings

SIZE = MIN_FREED
MIN_FREE = 2 * SIZE


class Disk:
    """A disk that holds the cache and files of others."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.others = 0

    @property
    def free(self) -> int:
        used = sum(path.stat().st_size for path in self.folder.glob("objects/*/*"))
        return self.size - self.others - used

    def statvfs(self, path: object) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=self.free, f_frsize=1)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path / "cache", 6 * SIZE)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    return disk


@pytest.fixture
def cache(disk: Disk) -> Iterator[LocalCache]:
    with LocalCache.open(CacheSettings(disk.folder, limit=None, min_free=MIN_FREE)) as cache:
        yield cache


def test_so_much_of_the_disk_stays_free(cache: LocalCache, disk: Disk) -> None:
    source = MemoryStore()
    store = CachedStore(cache, source)
    for number in range(10):
        content = bytes([number]) * SIZE
        ref = ObjectRef(source.put(content, codec=Codec.NONE), codec=Codec.NONE, size=SIZE)
        store.open(ref).close()
        assert disk.free >= MIN_FREE
    assert cache.usage().objects == 4
    assert store.counters.uncached == 0


def test_where_others_leave_too_little_reads_are_served_uncached(
    cache: LocalCache, disk: Disk
) -> None:
    source = MemoryStore()
    store = CachedStore(cache, source)
    refs = [
        ObjectRef(source.put(content, codec=Codec.NONE), codec=Codec.NONE, size=SIZE)
        for content in (b"a" * SIZE, b"b" * SIZE)
    ]
    with store.open(refs[0]) as held:
        disk.others = 4 * SIZE
        with store.open(refs[1]) as handle:
            assert handle.read_all() == b"b" * SIZE
        assert held.read_all() == b"a" * SIZE
    assert store.counters.uncached == 1
    assert not cache.has(refs[1])
    disk.others = 0
    store.open(refs[1]).close()
    assert cache.has(refs[1])
