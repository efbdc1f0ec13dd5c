from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.commands import run
from support.faulty_server import FaultyServer
from support.mounts import mounted
from support.publishing import PublishedRepository, make_repository

from lazyfs.publish.cutter import ChunkSizes

SIZES = ChunkSizes(minimum=64 << 10, average=128 << 10, maximum=256 << 10)
BIG = os.urandom(2 << 20)


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return make_repository(tmp_path, {"big": BIG, "small": b"small"}, sizes=SIZES)


@pytest.fixture
def server(repository: PublishedRepository) -> Iterator[FaultyServer]:
    with FaultyServer(repository.served) as server:
        yield server


@pytest.mark.parametrize("objects", [0, 1, 4])
def test_a_mount_killed_in_the_middle_of_fetching_leaves_a_usable_cache(
    objects: int, repository: PublishedRepository, server: FaultyServer, tmp_path: Path
) -> None:
    url, cache = f"{server.url}/{repository.fqrn}", tmp_path / "cache"
    failed: list[int] = []
    with mounted(url, pubkey=repository.pubkey, cache=cache) as mount:
        assert (mount.path / "small").read_bytes() == b"small"
        server.fault("*/data/*", faults.stall_body(1000), skip=objects)
        held = server.count("*/data/*") + objects

        def read() -> None:
            try:
                (mount.path / "big").read_bytes()
            except OSError as exc:
                failed.append(exc.errno or 0)

        reader = threading.Thread(target=read)
        reader.start()
        while server.count("*/data/*") <= held or not list((cache / "tmp").iterdir()):
            threading.Event().wait(0.01)
        mount.kill()
        reader.join()
    assert failed[0] in (errno.ECONNABORTED, errno.ENOTCONN, errno.EIO)
    server.clear()
    done = run("cache", "fsck", "--cache", str(cache))
    assert done.returncode == 0, done.stdout + done.stderr
    with mounted(url, pubkey=repository.pubkey, cache=cache) as mount:
        assert (mount.path / "big").read_bytes() == BIG
        assert (mount.path / "small").read_bytes() == b"small"
        usage = mount.ctl("cache", "size")
        assert usage["temporary"] == 0
    assert list((cache / "tmp").iterdir()) == []
    files = sum(path.stat().st_size for path in (cache / "objects").rglob("*") if path.is_file())
    assert files == usage["used"]
