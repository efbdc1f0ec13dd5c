from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mounts import RunningMount, mounted
from support.publishing import Item, PublishedRepository, Symlink, make_repository
from support.waiting import wait_until

from lazyfs.publish.cutter import ChunkSizes

SIZES = ChunkSizes(minimum=16 << 10, average=32 << 10, maximum=64 << 10)
OLD = b"old." * 50_000
NEW = b"new!" * 50_000


@contextmanager
def live(
    tmp_path: Path, tree: dict[str, Item]
) -> Iterator[tuple[RunningMount, PublishedRepository]]:
    repository = make_repository(tmp_path, tree, sizes=SIZES)
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        yield mount, repository


def publish(mount: RunningMount, repository: PublishedRepository, tree: dict[str, Item]) -> None:
    repository.publish(tree)
    assert mount.ctl("remount") == "new revision applied"


def test_an_open_file_keeps_its_bytes(tmp_path: Path) -> None:
    with live(tmp_path, {"file": OLD}) as (mount, repository):
        with (mount.path / "file").open("rb", buffering=0) as file:
            assert file.read(10) == OLD[:10]
            publish(mount, repository, {"file": NEW})
            assert (mount.path / "file").read_bytes() == NEW
            assert file.read() + file.read() == OLD[10:]
        assert (mount.path / "file").read_bytes() == NEW
        assert os.getxattr(mount.path, "user.revision") == b"2"


def test_a_file_that_is_gone_can_be_read_to_its_end_by_who_has_it_open(tmp_path: Path) -> None:
    with (
        live(tmp_path, {"file": OLD, "other": b""}) as (mount, repository),
        (mount.path / "file").open("rb") as file,
    ):
        publish(mount, repository, {"other": b""})
        assert not (mount.path / "file").exists()
        assert file.read() == OLD


def test_the_revision_appears_by_itself_when_the_ttl_is_over(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"file": b"old"}, ttl=1)
    arguments = ("--set", "CVMFS_KCACHE_TIMEOUT=1")
    with mounted(repository.root, *arguments, pubkey=repository.pubkey) as mount:
        repository.publish({"file": b"new"})
        log = mount.log_path
        wait_until(lambda: "revision 2" in log.read_text())
        wait_until(lambda: (mount.path / "file").read_bytes() == b"new")


def look(path: Path) -> str:
    """What is there, through every call that a program might make of it."""
    try:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        if path.is_dir():
            return f"directory of {sorted(entry.name for entry in path.iterdir())}"
        return f"file of {path.read_bytes()[:4]!r}"
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


STATES: dict[str, dict[str, Item]] = {
    "file": {"x": OLD},
    "directory": {"x/inside": b"in", "x/more": b"more"},
    "link": {"x": Symlink("keep")},
    "nothing": {},
    "nested": {"x/.cvmfscatalog": b"", "x/inside": b"in"},
    "other file": {"x": NEW},
}

SEEN = {
    "file": "file of b'old.'",
    "directory": "directory of ['inside', 'more']",
    "link": "link to keep",
    "nothing": "ENOENT",
    "nested": "directory of ['.cvmfscatalog', 'inside']",
    "other file": "file of b'new!'",
}


def test_types_change_in_every_way_without_an_error(tmp_path: Path) -> None:
    base: dict[str, Item] = {"keep": b"kept"}
    changes = [(old, new) for old in STATES for new in STATES if old != new]
    with live(tmp_path, base) as (mount, repository):
        path = mount.path / "x"
        for old, new in changes:
            for state in (old, new):
                repository.publish({**base, **STATES[state]})
                mount.ctl("remount")
                assert look(path) == SEEN[state], (old, new)
            assert (mount.path / "keep").read_bytes() == b"kept"


def test_a_working_directory_that_is_gone_answers_and_one_that_stays_goes_on(
    tmp_path: Path,
) -> None:
    with live(tmp_path, {"a/b/file": b"1", "c/file": b"1"}) as (mount, repository):
        gone = os.open(mount.path / "a" / "b", os.O_RDONLY | os.O_DIRECTORY)
        stays = os.open(mount.path / "c", os.O_RDONLY | os.O_DIRECTORY)
        try:
            publish(mount, repository, {"c/file": b"2", "c/more": b"2"})
            assert names_in(stays) == {"file", "more"}
            with pytest.raises(OSError, match="Errno") as caught:
                os.open("file", os.O_RDONLY, dir_fd=gone)
            assert caught.value.errno in (errno.ENOENT, errno.ESTALE)
        finally:
            os.close(gone)
            os.close(stays)


def names_in(directory: int) -> set[str]:
    """What ``ls`` shows whose working directory it is."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            return {entry.name for entry in entries}
    finally:
        os.close(fd)


class Readers:
    """Threads that read while revisions come and go; each whole file must be of one revision."""

    def __init__(self, root: Path, contents: set[bytes]) -> None:
        self._root = root
        self._contents = contents
        self._stop = threading.Event()
        self.problems: list[str] = []
        self.reads = 0

    def run(self) -> None:
        while not self._stop.is_set():
            self._read("stable", {OLD})
            self._read("changing", self._contents)
            self._list()

    def _read(self, name: str, expected: set[bytes]) -> None:
        try:
            content = (self._root / name).read_bytes()
        except OSError as exc:
            self.problems.append(f"{name}: {exc}")
            return
        self.reads += 1
        if content not in expected:
            self.problems.append(f"{name}: a mix of {len(content)} bytes")

    def _list(self) -> None:
        try:
            names = {entry.name for entry in self._root.iterdir()}
        except OSError as exc:
            self.problems.append(f"root: {exc}")
            return
        if not {"stable", "changing"} <= names:
            self.problems.append(f"root lists {sorted(names)}")

    def stop(self) -> None:
        self._stop.set()


def test_readers_never_see_a_mix_nor_an_error_while_revisions_come(tmp_path: Path) -> None:
    contents = [bytes([65 + number]) * (150_000 + 1000 * number) for number in range(8)]
    with live(tmp_path, {"stable": OLD, "changing": contents[0]}) as (mount, repository):
        readers = Readers(mount.path, set(contents))
        threads = [threading.Thread(target=readers.run) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for content in contents[1:]:
                publish(mount, repository, {"stable": OLD, "changing": content})
        finally:
            readers.stop()
            for thread in threads:
                thread.join()
        assert readers.problems == []
        assert readers.reads > len(contents)
        assert (mount.path / "changing").read_bytes() == contents[-1]


def test_a_mapped_file_keeps_its_bytes(tmp_path: Path) -> None:
    with live(tmp_path, {"file": OLD}) as (mount, repository):
        with (mount.path / "file").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        with mapped:
            assert mapped[:4] == OLD[:4]
            publish(mount, repository, {"file": NEW})
            assert (mount.path / "file").read_bytes() == NEW
            assert mapped[:] == OLD
