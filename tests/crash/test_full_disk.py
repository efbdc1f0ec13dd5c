from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import run
from support.mounts import mounted
from support.publishing import Item, PublishedRepository, make_repository

from lazyfs.errors import LazyfsError, PublishError
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.gc import collect_garbage
from lazyfs.publish.verify import verify_target
from lazyfs.repository.manifest import MANIFEST_PATH

DISK_BYTES = 24 << 20
FILES = 30
FILE_BYTES = 1 << 20


def content(number: int) -> bytes:
    return random.Random(number).randbytes(FILE_BYTES)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    tree: dict[str, Item] = {f"file{number}": content(number) for number in range(FILES)}
    return make_repository(tmp_path_factory.mktemp("full"), tree)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    image, place = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def used_share(disk: Path) -> float:
    status = os.statvfs(disk)
    return 1 - status.f_bavail / status.f_blocks


def test_a_cache_larger_than_its_disk_evicts_and_goes_on(
    repository: PublishedRepository, disk: Path
) -> None:
    cache = disk / "cache"
    with mounted(repository.root, pubkey=repository.pubkey, cache=cache) as mount:
        for _ in range(2):
            for number in range(FILES):
                assert (mount.path / f"file{number}").read_bytes() == content(number)
        assert used_share(disk) > 0.5
        assert mount.ctl("status")["io_errors"] == 0
        assert mount.ctl("counters")["store"]["uncached"] == 0
        assert mount.ctl("cache", "size")["evictions"] > 0
    assert run("cache", "fsck", "--cache", str(cache)).returncode == 0


def test_on_a_disk_that_others_filled_reads_are_served_uncached(
    repository: PublishedRepository, disk: Path
) -> None:
    cache = disk / "cache"
    with mounted(
        repository.root, pubkey=repository.pubkey, cache=cache, expect=["serving uncached"]
    ) as mount:
        assert (mount.path / "file0").read_bytes() == content(0)
        fill(disk / "ballast")
        for number in range(FILES):
            assert (mount.path / f"file{number}").read_bytes() == content(number)
        counters = mount.ctl("counters")["store"]
        assert counters["uncached"] > 0
        assert mount.ctl("status")["io_errors"] == 0
        (disk / "ballast").unlink()
        before = mount.ctl("cache", "size")["objects"]
        # Objects that the mount holds in memory are read from there: look at the others.
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        for number in range(FILES):
            assert (mount.path / f"file{number}").read_bytes() == content(number)
        assert mount.ctl("cache", "size")["objects"] >= before
    assert run("cache", "fsck", "--cache", str(cache)).returncode == 0


def fill(path: Path) -> None:
    """Take all room that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def test_a_mount_starts_on_a_full_disk(repository: PublishedRepository, disk: Path) -> None:
    cache = disk / "cache"
    with mounted(repository.root, pubkey=repository.pubkey, cache=cache) as mount:
        assert (mount.path / "file0").read_bytes() == content(0)
    fill(disk / "ballast")
    with mounted(repository.root, pubkey=repository.pubkey, cache=cache, expect=[".*"]) as mount:
        assert (mount.path / "file0").read_bytes() == content(0)
        assert (mount.path / "file1").read_bytes() == content(1)


def test_a_publisher_whose_target_is_full_publishes_nothing(disk: Path, tmp_path: Path) -> None:
    target = disk / "served"
    target.mkdir()
    (tmp_path / "served").symlink_to(target)
    made = make_repository(tmp_path, {"a": b"1"})
    before = (made.root / MANIFEST_PATH).read_bytes()
    too_much: dict[str, Item] = {f"file{number}": content(number) for number in range(FILES)}
    with pytest.raises(PublishError, match="No space left on device"):
        made.publish(too_much)
    assert (made.root / MANIFEST_PATH).read_bytes() == before
    report = verify_target(DirectoryTarget(made.root), made.fqrn, made.keys.trusted)
    assert report.problems == ()
    # What was uploaded is garbage by now; once it is gone there is room again.
    collect_garbage(made.publisher.ledger)
    assert made.publish({"a": b"2"}).revision == 2


def test_a_publisher_without_room_for_temporary_files_publishes_nothing(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_repository(tmp_path, {"a": b"1"})
    before = (made.root / MANIFEST_PATH).read_bytes()
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    fill(disk / "ballast")
    with pytest.raises(LazyfsError, match=r"No space left|disk is full"):
        made.publish({"a": b"2"})
    assert (made.root / MANIFEST_PATH).read_bytes() == before
    (disk / "ballast").unlink()
    assert made.publish({"a": b"2"}).revision == 2
