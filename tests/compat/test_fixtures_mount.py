from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import mounted
from support.reference import NAMES, TAGS, Reference, ReferenceRepositories, Truth

from lazyfs.net.static_server import StaticServer


@pytest.fixture
def external_url(references: ReferenceRepositories) -> Iterator[str]:
    with StaticServer(references.external_data()) as server:
        yield server.url


def check_path(root: Path, truth: Truth) -> tuple[int, int]:
    path = os.fsencode(root) + truth.path
    status = os.lstat(path)
    seen = (
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
    )
    expected = (truth.mode, truth.size, truth.mtime_ns, truth.nlink, truth.uid, truth.gid)
    assert seen == expected, truth.path
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        assert status.st_rdev == truth.rdev
    if truth.target is not None:
        assert os.readlink(path) == truth.target  # noqa: PTH115 - the path is bytes
    if truth.sha256 is not None:
        with open(path, "rb") as file:  # noqa: PTH123 - the path is bytes
            assert hashlib.file_digest(file, "sha256").hexdigest() == truth.sha256, truth.path
    check_xattrs(path, truth)
    return status.st_ino, status.st_nlink


def check_xattrs(path: bytes, truth: Truth) -> None:
    # The content was read just before, as it was for the truth: user.lhash looks at the cache.
    for name, value in truth.xattrs.items():
        assert os.getxattr(path, name, follow_symlinks=False) == value, (truth.path, name)
    for name, number in truth.xattr_errors.items():
        with pytest.raises(OSError, match="Errno") as caught:
            os.getxattr(path, name, follow_symlinks=False)
        assert caught.value.errno == number, (truth.path, name)


def check_mount(reference: Reference, folder: Path, truths: list[Truth], *options: str) -> None:
    cache = folder / "cache"
    with mounted(reference.folder, *options, pubkey=reference.key, cache=cache) as mount:
        found = {b""}
        for top, directories, files in os.walk(os.fsencode(mount.path)):
            found |= {top + b"/" + name for name in (*directories, *files)}
        root = os.fsencode(mount.path)
        assert {p.removeprefix(root) for p in found} == {truth.path for truth in truths}
        inodes: dict[int, int] = {}
        links: dict[int, int] = {}
        for truth in truths:
            inode, count = check_path(mount.path, truth)
            if not stat.S_ISDIR(truth.mode):
                inodes[inode] = inodes.get(inode, 0) + 1
                links[inode] = count
        # Hard links share an inode, and nothing else does.
        assert inodes == links


@pytest.mark.parametrize("name", NAMES)
def test_a_mount_shows_what_the_real_client_showed(
    name: str, references: ReferenceRepositories, external_url: str, tmp_path: Path
) -> None:
    reference = references.get(name)
    check_mount(reference, tmp_path, reference.truth(), "--external-url", external_url)


@pytest.mark.parametrize("tag", TAGS)
def test_a_mount_at_a_tag_shows_what_the_real_client_showed(
    tag: str, references: ReferenceRepositories, tmp_path: Path
) -> None:
    reference = references.get("history")
    check_mount(reference, tmp_path, reference.truth(tag), "--tag", tag)
