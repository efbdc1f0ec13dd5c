"""A repository with something of everything that lazyfs publishes."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm
from lazyfs.publish.cutter import ChunkSizes
from support.publishing import (
    File,
    Folder,
    HardLink,
    Item,
    PublishedRepository,
    Symlink,
    make_repository,
    write_tree,
)

SIZES = ChunkSizes(minimum=64 << 10, average=128 << 10, maximum=256 << 10)

BIG = random.Random(1).randbytes(900_000)

RAW = b"/raw"
"""What lies below is stored uncompressed."""

TREE: Mapping[str, Item] = {
    "file": File(b"content", mtime_ns=1_500_000_000_123_456_789, xattrs={"user.note": b"\x00\xff"}),
    "noted": File(b"", xattrs={"user.a": b"", "user.b": b"x" * 255}),
    "old": File(b"x", mtime_ns=-1_000_000_000),
    "empty": b"",
    "chunked": BIG,
    "raw/file": b"stored as it is",
    "raw/empty": b"",
    "raw/chunked": BIG[:500_000],
    "program": File(b"#!/bin/sh\necho hi\n", mode=0o4755),
    "link": Symlink("sub/inside"),
    "dangling": Symlink("../../nowhere"),
    "variable": Symlink("$(CVMFS_TEST_VARIABLE)"),
    "variables": Symlink("/a/$(CVMFS_TEST_VARIABLE:-b)/$(CVMFS_TEST_UNSET:-c)$(CVMFS_TEST_UNSET)"),
    "broken variable": Symlink("$(CVMFS_TEST_VARIABLE"),
    "about": Symlink("$(CVMFS_FQRN)"),
    "twin1": b"same",
    "twin2": HardLink("twin1"),
    "sub/.cvmfscatalog": b"",
    "sub/inside": b"inside",
    "sub/far twin": HardLink("twin1"),
    "sub/plain/chunked": BIG[100_000:],
    "sub/deeper/.cvmfscatalog": b"",
    "sub/deeper/file": b"deep",
    "sub/deeper/twin1": b"deep twins",
    "sub/deeper/twin2": HardLink("sub/deeper/twin1"),
    "private": Folder(0o700),
    "sticky": Folder(0o1777),
    "caf\udce9": b"odd name",
    "n" * 255: b"long name",
}


def varied_repository(tmp_path: Path, algorithm: Algorithm) -> PublishedRepository:
    """A repository whose revision 2 holds `TREE`, with the tag ``first``."""
    repository = make_repository(tmp_path, {}, algorithm=algorithm, sizes=SIZES)
    repository.options = replace(repository.options, codec=_codec)
    repository.publish(lay_out(tmp_path / "varied", TREE), tag="first")
    return repository


def lay_out(folder: Path, tree: Mapping[str, Item]) -> Path:
    """Make ``folder`` anew from ``tree``, and some entries that only root can make."""
    shutil.rmtree(folder, ignore_errors=True)
    write_tree(folder, tree)
    os.mkfifo(folder / "pipe", 0o620)
    os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(240, 300))
    for name in ("pipe", "private"):
        if (folder / name).exists():
            os.chown(folder / name, 1234, 5678)
    return folder


def _codec(path: bytes) -> Codec:
    return Codec.NONE if path.startswith(RAW + b"/") else Codec.ZLIB
