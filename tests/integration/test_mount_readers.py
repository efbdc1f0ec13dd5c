from __future__ import annotations

import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.faulty_server import FaultyServer
from support.mounts import RunningMount, mounted
from support.publishing import Item, PublishedRepository, make_repository
from support.waiting import wait_until

from lazyfs.publish.cutter import ChunkSizes

READERS = 64
SIZES = ChunkSizes(minimum=256 << 10, average=512 << 10, maximum=1 << 20)
LARGE = random.Random(3).randbytes(12 << 20)
PEAK_BYTES = 120_000_000


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    tree: dict[str, Item] = {"large": LARGE}
    for number in range(400):
        tree[f"dir{number % 20:02}/file{number:03}"] = os.urandom(100 + number * 37)
    for number in range(20):
        tree[f"dir{number:02}/.cvmfscatalog"] = b""
    return make_repository(tmp_path_factory.mktemp("readers"), tree, sizes=SIZES)


@pytest.fixture
def server(repository: PublishedRepository) -> Iterator[FaultyServer]:
    with FaultyServer(repository.served) as server:
        yield server


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def check_each_object_once(server: FaultyServer) -> None:
    objects = Counter(seen.path for seen in server.seen if "/data/" in seen.path)
    assert objects
    assert [path for path, times in objects.items() if times > 1] == []


def peak_bytes(mount: RunningMount) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{mount.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def test_many_readers_at_once_get_right_bytes_and_fetch_each_object_once(
    repository: PublishedRepository, server: FaultyServer
) -> None:
    truth = digests(repository.source)
    url = f"{server.url}/{repository.fqrn}"
    with mounted(url, pubkey=repository.pubkey) as mount, ThreadPoolExecutor(READERS) as pool:

        def read(seed: int) -> list[str]:
            names = sorted(truth)
            random.Random(seed).shuffle(names)
            return [
                name
                for name in names
                if hashlib.sha256((mount.path / name).read_bytes()).hexdigest() != truth[name]
            ]

        assert list(pool.map(read, range(READERS))) == [[]] * READERS
        check_each_object_once(server)
        assert peak_bytes(mount) < PEAK_BYTES
        # The kernel tells of a file's end when it has the time.
        wait_until(lambda: mount.ctl("status")["open_files"] == 0)


def test_many_readers_of_one_large_file_share_its_chunks(
    repository: PublishedRepository, server: FaultyServer
) -> None:
    url = f"{server.url}/{repository.fqrn}"
    with mounted(url, pubkey=repository.pubkey) as mount, ThreadPoolExecutor(READERS) as pool:

        def read(seed: int) -> bool:
            place = random.Random(seed)
            with (mount.path / "large").open("rb", buffering=0) as file:
                for _ in range(20):
                    offset = place.randrange(len(LARGE))
                    size = place.randrange(1, 300_000)
                    file.seek(offset)
                    if file.read(size) != LARGE[offset : offset + size]:
                        return False
            return True

        assert all(pool.map(read, range(READERS)))
        check_each_object_once(server)
        assert peak_bytes(mount) < PEAK_BYTES


def test_many_readers_in_a_cache_that_is_far_too_small(
    repository: PublishedRepository, server: FaultyServer
) -> None:
    truth = digests(repository.source)
    url = f"{server.url}/{repository.fqrn}"
    arguments = ("--set", "CVMFS_QUOTA_LIMIT=3")
    with (
        mounted(url, *arguments, pubkey=repository.pubkey, expect=["uncached"]) as mount,
        ThreadPoolExecutor(READERS) as pool,
    ):
        names = sorted(truth) * 2
        random.Random(5).shuffle(names)

        def read(name: str) -> bool:
            digest = hashlib.sha256((mount.path / name).read_bytes()).hexdigest()
            usage = mount.ctl("cache", "size")
            return digest == truth[name] and usage["used"] + usage["temporary"] <= 3 << 20

        assert all(pool.map(read, names))
        assert peak_bytes(mount) < 2 * PEAK_BYTES
