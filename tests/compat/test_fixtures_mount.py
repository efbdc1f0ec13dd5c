from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.mounts import RunningMount, mounted
from support.reference import NAMES, TAGS, Reference, ReferenceRepositories, Truth

from lazyfs.net.static_server import StaticServer


@pytest.fixture
def external_url(references: ReferenceRepositories) -> Iterator[str]:
    with StaticServer(references.external_data()) as server:
        yield server.url


def walk(root: bytes) -> Iterator[bytes]:
    """All paths below a mount, as the truth files name them."""
    yield b""
    stack = [b""]
    while stack:
        at = stack.pop()
        with os.scandir(root + at) as entries:
            for entry in entries:
                path = at + b"/" + entry.name
                yield path
                if entry.is_dir(follow_symlinks=False):
                    stack.append(path)


def facts(path: bytes) -> tuple[int, ...]:
    status = os.lstat(path)
    rdev = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
    return (
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        rdev,
    )


def check_entry(root: bytes, truth: Truth) -> None:
    path = root + truth.path
    expected = (
        truth.mode,
        truth.size,
        truth.mtime_ns,
        truth.nlink,
        truth.uid,
        truth.gid,
        truth.rdev,
    )
    assert facts(path) == expected, truth.path
    if truth.target is not None:
        assert os.readlink(path) == truth.target, truth.path  # noqa: PTH115 - names are bytes
    if truth.sha256 is not None:
        with open(path, "rb") as file:  # noqa: PTH123 - names are bytes
            assert hashlib.file_digest(file, "sha256").hexdigest() == truth.sha256, truth.path


def check_xattrs(root: bytes, truth: Truth) -> None:
    """After the content was read: ``user.lhash`` tells of the cache."""
    path = root + truth.path
    for name, value in truth.xattrs.items():
        assert os.getxattr(path, name, follow_symlinks=False) == value, (truth.path, name)
    for name, number in truth.xattr_errors.items():
        with pytest.raises(OSError, match="Errno") as caught:
            os.getxattr(path, name, follow_symlinks=False)
        assert caught.value.errno == number, (truth.path, name)
    stored = {name for name in truth.xattrs if name not in MAGIC}
    if truth.path and not stat.S_ISLNK(truth.mode):
        assert set(os.listxattr(path, follow_symlinks=False)) == stored, truth.path


MAGIC = {
    "user.chunk_list",
    "user.chunks",
    "user.compression",
    "user.external_file",
    "user.hash",
    "user.lhash",
}


def check_all(mount: RunningMount, truths: list[Truth]) -> None:
    root = os.fsencode(mount.path)
    assert sorted(walk(root)) == sorted(truth.path for truth in truths)
    for truth in truths:
        check_entry(root, truth)
        check_xattrs(root, truth)


def mount_reference(
    reference: Reference, cache: Path, *arguments: str
) -> AbstractContextManager[RunningMount]:
    return mounted(reference.folder, *arguments, pubkey=reference.key, cache=cache)


@pytest.mark.parametrize("name", NAMES)
def test_a_mount_shows_what_the_real_client_showed(
    name: str, references: ReferenceRepositories, external_url: str, tmp_path: Path
) -> None:
    reference = references.get(name)
    with mount_reference(reference, tmp_path / "cache", "--external-url", external_url) as mount:
        check_all(mount, reference.truth())


@pytest.mark.parametrize("tag", TAGS)
def test_a_mount_at_a_tag_shows_what_the_real_client_showed(
    tag: str, references: ReferenceRepositories, tmp_path: Path
) -> None:
    reference = references.get("history")
    with mount_reference(reference, tmp_path / "cache", "--tag", tag) as mount:
        check_all(mount, reference.truth(tag))
        assert os.getxattr(mount.path, "user.tag") == tag.encode()
        assert os.getxattr(mount.path, "user.expires") == b"never (fixed root catalog)"


def test_nothing_can_be_changed(references: ReferenceRepositories, tmp_path: Path) -> None:
    reference = references.get("basic")
    with mount_reference(reference, tmp_path / "cache") as mount:
        file = mount.path / "text" / "readme.txt"
        attempts = (
            lambda: file.open("r+b"),
            lambda: file.unlink(),
            lambda: file.chmod(0o777),
            lambda: file.rename(mount.path / "other"),
            lambda: (mount.path / "new").mkdir(),
            lambda: (mount.path / "new").touch(),
            lambda: (mount.path / "new").symlink_to("x"),
            lambda: os.utime(file),
            lambda: os.truncate(file, 0),
            lambda: os.setxattr(file, "user.x", b"y"),
        )
        for attempt in attempts:
            with pytest.raises(OSError, match="Read-only file system") as caught:
                attempt()
            assert caught.value.errno == errno.EROFS
