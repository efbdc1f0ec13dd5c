"""What is large, deep, odd or forbidden, through a real mount."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faulty_server import FaultyServer
from support.mounts import RunningMount, mounted
from support.publishing import File, Item, PublishedRepository, Symlink, make_repository
from support.waiting import wait_until

from lazyfs.fuse.directories import KEPT_NODES

CROWD = 3000
DEEP = "/".join(f"level{number:03}" for number in range(200))
ODD = "odd \n\\ \udcff"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    tree: dict[str, Item] = {
        "hello": b"hello",
        "link": Symlink("hello"),
        "program": File(Path("/bin/cat").read_bytes(), mode=0o755),
        f"{DEEP}/leaf": b"deep",
        f"{ODD}/{ODD}": b"odd",
        "n" * 255: b"long",
    }
    tree |= {f"crowd/{number:04}": b"%d" % number for number in range(CROWD)}
    return make_repository(tmp_path_factory.mktemp("limits"), tree)


@pytest.fixture(scope="module")
def mount(repository: PublishedRepository) -> Iterator[RunningMount]:
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        yield mount


@pytest.fixture
def server(repository: PublishedRepository) -> Iterator[FaultyServer]:
    with FaultyServer(repository.served) as server:
        yield server


def test_deep_odd_and_long_names(mount: RunningMount) -> None:
    assert (mount.path / DEEP / "leaf").read_bytes() == b"deep"
    assert (mount.path / ODD / ODD).read_bytes() == b"odd"
    assert (mount.path / ("n" * 255)).read_bytes() == b"long"
    with pytest.raises(OSError, match="too long"):
        (mount.path / ("n" * 256)).stat()


def create(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def change(path: Path, flags: int) -> None:
    os.close(os.open(path, flags))


WRITES: dict[str, Callable[[Path], object]] = {
    "create": lambda root: create(root / "new"),
    "open to write": lambda root: change(root / "hello", os.O_WRONLY),
    "open to read and write": lambda root: change(root / "hello", os.O_RDWR),
    "open to append": lambda root: change(root / "hello", os.O_WRONLY | os.O_APPEND),
    "open to truncate": lambda root: change(root / "hello", os.O_RDONLY | os.O_TRUNC),
    "temporary file": lambda root: change(root, os.O_TMPFILE | os.O_RDWR),
    "truncate": lambda root: os.truncate(root / "hello", 1),
    "mkdir": lambda root: (root / "new").mkdir(),
    "rmdir": lambda root: (root / "crowd").rmdir(),
    "unlink": lambda root: (root / "hello").unlink(),
    "unlink of nothing": lambda root: (root / "nothing").unlink(),
    "rename": lambda root: (root / "hello").rename(root / "new"),
    "rename over another": lambda root: (root / "hello").rename(root / "link"),
    "link": lambda root: (root / "new").hardlink_to(root / "hello"),
    "symlink": lambda root: (root / "new").symlink_to("hello"),
    "mknod": lambda root: os.mknod(root / "new"),
    "mkfifo": lambda root: os.mkfifo(root / "new"),
    "chmod": lambda root: (root / "hello").chmod(0o600),
    "chown": lambda root: os.chown(root / "hello", 1, 1),
    "lchown": lambda root: os.lchown(root / "link", 1, 1),
    "utime": lambda root: os.utime(root / "hello", (1, 1)),
    "setxattr": lambda root: os.setxattr(root / "hello", "user.x", b"x"),
    "setxattr of a magic one": lambda root: os.setxattr(root, "user.revision", b"9"),
    "removexattr": lambda root: os.removexattr(root / "hello", "user.x"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_write_is_refused_as_read_only(
    write: Callable[[Path], object], mount: RunningMount
) -> None:
    with pytest.raises(OSError, match="Errno") as caught:
        write(mount.path)
    assert caught.value.errno == errno.EROFS


def test_access_says_that_nothing_can_be_written(mount: RunningMount) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.access(os.fsencode(mount.path / "hello"), os.W_OK) == -1
    assert ctypes.get_errno() == errno.EROFS


def test_a_program_runs_cold_from_a_server(repository: PublishedRepository, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lazyfs.cli.main", "serve", "--port", "0"]
    serve = subprocess.Popen([*command, repository.served], stdout=subprocess.PIPE, text=True)
    try:
        assert serve.stdout is not None
        url = serve.stdout.readline().split()[-1]
        with mounted(f"{url}/{repository.fqrn}", pubkey=repository.pubkey) as mount:
            done = subprocess.run(
                [mount.path / "program", mount.path / "hello"], check=True, capture_output=True
            )
            assert done.stdout == b"hello"
    finally:
        serve.terminate()
        serve.communicate()


def test_what_the_kernel_remembers_is_bounded(repository: PublishedRepository) -> None:
    setting = "LAZYFS_KNOWN_NODES=1024"
    with mounted(repository.root, "--set", setting, pubkey=repository.pubkey) as mount:
        crowd = mount.path / "crowd"
        with (crowd / "0000").open("rb") as file:
            for _ in range(3):
                assert sum(entry.stat().st_size > 0 for entry in os.scandir(crowd)) == CROWD
            wait_until(lambda: mount.ctl("status")["nodes"] <= 1024)
            # An open file keeps its name.
            assert Path(f"/proc/self/fd/{file.fileno()}").readlink() == crowd / "0000"
            assert file.read() == b"0"
        for number in range(0, CROWD, 100):
            assert (crowd / f"{number:04}").read_bytes() == b"%d" % number


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_what_is_mounted_on_a_file_stays(repository: PublishedRepository) -> None:
    setting = "LAZYFS_KNOWN_NODES=1024"
    with mounted(repository.root, "--set", setting, pubkey=repository.pubkey) as mount:
        crowd = mount.path / "crowd"
        subprocess.run(["mount", "--bind", mount.path / "hello", crowd / "0000"], check=True)
        try:
            for _ in range(3):
                assert len([entry.stat() for entry in os.scandir(crowd)]) == CROWD
            wait_until(lambda: mount.ctl("status")["nodes"] <= 1024)
            assert (crowd / "0000").read_bytes() == b"hello"
        finally:
            subprocess.run(["umount", crowd / "0000"], check=True)


def test_a_directory_larger_than_is_kept(tmp_path: Path) -> None:
    names = {f"{number:05}" for number in range(KEPT_NODES + 1000)}
    tree: dict[str, Item] = {f"huge/{name}": b"" for name in names}
    repository = make_repository(tmp_path, tree)
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        huge = mount.path / "huge"
        for _ in range(2):
            assert {entry.name for entry in os.scandir(huge)} == names
        assert (huge / "00000").stat().st_size == 0
        assert not (huge / "none").exists()
