from __future__ import annotations

import errno
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import RunningMount, mounted
from support.publishing import (
    File,
    Folder,
    HardLink,
    Item,
    PublishedRepository,
    Symlink,
    make_repository,
)

NOBODY = 65534

TREE: dict[str, Item] = {
    "hello": File(b"hello\n", mode=0o640, mtime_ns=1_234_567_890_123_456_789),
    "links/one": b"shared",
    "links/two": HardLink("links/one"),
    "links/three": HardLink("links/one"),
    "links/other": b"shared",
    "tagged": File(b"x", xattrs={"user.colour": b"blue"}),
    "here": Symlink("hello"),
    "expanded": Symlink("$(LAZYFS_TEST_TARGET:-hello)"),
    "nested/.cvmfscatalog": b"",
    "nested/deep/file": b"deep",
    "closed": Folder(0o700),
    "closed/inside": b"secret",
    "program": File(b"#!/bin/sh\necho ran\n", mode=0o755),
}


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return make_repository(tmp_path, TREE)


def test_hard_links_share_an_inode_and_say_how_many_they_are(
    repository: PublishedRepository,
) -> None:
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        group = [(mount.path / "links" / name).stat() for name in ("one", "two", "three")]
        assert {status.st_nlink for status in group} == {3}
        assert len({status.st_ino for status in group}) == 1
        other = (mount.path / "links" / "other").stat()
        assert other.st_nlink == 1
        assert other.st_ino != group[0].st_ino
        for name in ("one", "two", "three"):
            assert (mount.path / "links" / name).read_bytes() == b"shared"
        listed = {entry.name: entry.inode() for entry in os.scandir(mount.path / "links")}
        assert {listed[name] for name in ("one", "two", "three")} == {group[0].st_ino}


def test_inodes_are_unique_and_stay(repository: PublishedRepository) -> None:
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        files = [path for path in mount.path.rglob("*") if path.parent.name != "links"]
        first = {path: path.lstat().st_ino for path in files}
        assert len(set(first.values())) == len(files)
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
        for path, inode in first.items():
            with os.scandir(path.parent) as entries:
                assert next(e.inode() for e in entries if e.name == path.name) == inode


def test_times_have_nanoseconds(repository: PublishedRepository) -> None:
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        assert (mount.path / "hello").stat().st_mtime_ns == 1_234_567_890_123_456_789


def test_variables_in_links_are_expanded(repository: PublishedRepository) -> None:
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        assert (mount.path / "expanded").readlink() == Path("hello")
    env = {"LAZYFS_TEST_TARGET": "nested/deep/file"}
    with mounted(repository.root, pubkey=repository.pubkey, env=env) as mount:
        assert (mount.path / "expanded").read_bytes() == b"deep"
        assert (mount.path / "expanded").lstat().st_size == len("nested/deep/file")


def test_programs_run_from_a_mount(repository: PublishedRepository) -> None:
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        assert subprocess.check_output([mount.path / "program"]) == b"ran\n"


MAGIC = {"user.fqrn", "user.revision", "user.pid", "user.version", "user.root_hash"}


@pytest.mark.parametrize(
    ("visibility", "root", "below"),
    [("rootonly", True, False), ("never", False, False), ("always", True, True)],
)
def test_magic_attributes_are_listed_where_wanted_and_answer_everywhere(
    visibility: str, root: bool, below: bool, repository: PublishedRepository
) -> None:
    setting = f"CVMFS_MAGIC_XATTRS_VISIBILITY={visibility}"
    with mounted(repository.root, "--set", setting, pubkey=repository.pubkey) as mount:
        tagged = mount.path / "tagged"
        assert MAGIC.issubset(os.listxattr(mount.path)) == root
        assert ("user.hash" in os.listxattr(tagged)) == below
        assert "user.colour" in os.listxattr(tagged)
        assert os.getxattr(tagged, "user.colour") == b"blue"
        assert os.getxattr(mount.path, "user.fqrn") == repository.fqrn.encode()
        assert os.getxattr(tagged, "user.pid") == str(mount.pid).encode()
        with pytest.raises(OSError, match="Errno") as caught:
            os.getxattr(tagged, "user.none")
        assert caught.value.errno == errno.ENODATA


@pytest.mark.parametrize("name", ["system.posix_acl_access", "security.selinux"])
def test_what_ls_asks_of_every_file_is_not_supported(
    name: str, repository: PublishedRepository
) -> None:
    """So `ls -l` asks once, not for every entry."""
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        with pytest.raises(OSError, match="Errno") as caught:
            os.getxattr(mount.path / "hello", name)
        assert caught.value.errno == errno.EOPNOTSUPP


def test_statfs_tells_how_full_the_cache_is(repository: PublishedRepository) -> None:
    limit = "CVMFS_QUOTA_LIMIT=100"
    with mounted(repository.root, "--set", limit, pubkey=repository.pubkey) as mount:
        status = os.statvfs(mount.path)
        assert status.f_frsize * status.f_blocks == 100 << 20
        used = mount.ctl("cache", "size")["used"]
        assert 0 < used < 1 << 20
        taken = (status.f_blocks - status.f_bfree) * status.f_frsize
        assert abs(taken - used) <= 2 * status.f_frsize
        assert status.f_flag & os.ST_RDONLY


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return subprocess.run([*become, *command], capture_output=True, text=True, check=False)


@pytest.fixture
def shared_place() -> Iterator[Path]:
    """A mount point that other users can reach: pytest's own folders are closed to them."""
    with tempfile.TemporaryDirectory(prefix="lazyfs-test-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        yield place


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_permissions_are_checked(repository: PublishedRepository, shared_place: Path) -> None:
    arguments = ("-o", "allow_other")
    with mounted(repository.root, *arguments, pubkey=repository.pubkey, at=shared_place) as mount:
        assert as_nobody("cat", f"{mount.path}/links/one").stdout == "shared"
        for path in ("hello", "closed/inside"):
            done = as_nobody("cat", f"{mount.path}/{path}")
            assert "Permission denied" in done.stderr
    arguments = ("-o", "allow_other,no_default_permissions")
    with mounted(repository.root, *arguments, pubkey=repository.pubkey, at=shared_place) as mount:
        assert as_nobody("cat", f"{mount.path}/hello").stdout == "hello\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_protected_attributes_are_for_privileged_groups(
    repository: PublishedRepository, shared_place: Path
) -> None:
    arguments = ["-o", "allow_other", "--set", "CVMFS_XATTR_PROTECTED_XATTRS=user.host"]
    script = "import os, sys; print(os.getxattr(sys.argv[1], sys.argv[2]))"
    with mounted(repository.root, *arguments, pubkey=repository.pubkey, at=shared_place) as mount:
        ask = ("/usr/bin/python3", "-c", script, str(mount.path))
        assert "No data available" in as_nobody(*ask, "user.host").stderr
        assert repository.fqrn in as_nobody(*ask, "user.fqrn").stdout
        assert os.getxattr(mount.path, "user.host")
    arguments += ["--set", f"CVMFS_XATTR_PRIVILEGED_GIDS={NOBODY}"]
    with mounted(repository.root, *arguments, pubkey=repository.pubkey, at=shared_place) as mount:
        assert "file://" in as_nobody(*ask, "user.host").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_without_allow_other_nobody_else_gets_in(
    repository: PublishedRepository, shared_place: Path
) -> None:
    with mounted(repository.root, pubkey=repository.pubkey, at=shared_place) as mount:
        assert "Permission denied" in as_nobody("ls", str(mount.path)).stderr


def owner(mount: RunningMount, name: str) -> tuple[int, int, int]:
    status = (mount.path / name).stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def test_ownership_can_be_claimed(repository: PublishedRepository) -> None:
    options = "claim_ownership,uid=4711,gid=4712,umask=027"
    with mounted(repository.root, "-o", options, pubkey=repository.pubkey) as mount:
        assert owner(mount, "program") == (4711, 4712, 0o750)
    with mounted(repository.root, pubkey=repository.pubkey) as mount:
        assert owner(mount, "program") == (os.getuid(), os.getgid(), 0o755)
