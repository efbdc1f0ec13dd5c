"""Repositories for tests, published by lazyfs itself from trees that the test spells out."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lazyfs.cas.digest import Algorithm
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.ingest import TreeOptions
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.publisher import DEFAULT_TTL, Publisher
from lazyfs.publish.transaction import PublishResult

FQRN = "test.example.org"


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    content: bytes = b""
    mode: int = 0o644
    mtime_ns: int | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory; only needed for empty ones and for those of another mode."""

    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class HardLink:
    """Another name for a file of the same tree, which must come before it."""

    of: str


Item = bytes | File | Folder | Symlink | HardLink
Tree = Mapping[str, Item] | Path
"""Items by relative path, bytes being a plain file; or a directory that exists already."""


@dataclass(slots=True)
class PublishedRepository:
    """A repository in a folder, and what is needed to read it and to publish more."""

    fqrn: str
    root: Path
    """The folder with ``.cvmfspublished``; its last component is the name."""
    pubkey: Path
    keys: RepositoryKeys
    publisher: Publisher
    options: TreeOptions
    source: Path
    """Where trees are laid out before they are published."""
    result: PublishResult

    @property
    def served(self) -> Path:
        """The folder to serve, so that the repository's URL is ``BASE/FQRN``."""
        return self.root.parent

    def publish(self, tree: Tree, *, tag: str | None = None) -> PublishResult:
        """Publish ``tree`` as the whole content of the next revision."""
        if isinstance(tree, Path):
            folder = tree
        else:
            folder = self.source
            shutil.rmtree(folder, ignore_errors=True)
            write_tree(folder, tree)
        self.result = self.publisher.publish(folder, options=self.options, tag=tag)
        return self.result


def make_repository(
    tmp_path: Path,
    tree: Tree,
    fqrn: str = FQRN,
    *,
    algorithm: Algorithm = Algorithm.SHA1,
    sizes: ChunkSizes | None = None,
    ttl: int = DEFAULT_TTL,
    options: TreeOptions | None = None,
    tag: str | None = None,
) -> PublishedRepository:
    """A new repository below ``tmp_path`` whose revision 1 holds ``tree``."""
    keys = _keys(fqrn)
    root = tmp_path / "served" / fqrn
    publisher = Publisher(
        DirectoryTarget(root), keys, fqrn, algorithm=algorithm, sizes=sizes, ttl=ttl
    )
    empty = publisher.init()
    pubkey = tmp_path / "keys" / f"{fqrn}.pub"
    pubkey.parent.mkdir(exist_ok=True)
    pubkey.write_bytes(keys.public_pem)
    repository = PublishedRepository(
        fqrn=fqrn,
        root=root,
        pubkey=pubkey,
        keys=keys,
        publisher=publisher,
        options=options or TreeOptions(),
        source=tmp_path / f"source-{fqrn}",
        result=empty,
    )
    repository.publish(tree, tag=tag)
    return repository


def write_tree(folder: Path, tree: Mapping[str, Item]) -> None:
    """Lay ``tree`` out below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, item in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match item:
            case bytes():
                _write_file(path, File(item))
            case File():
                _write_file(path, item)
            case Folder(mode):
                path.mkdir(exist_ok=True)
                path.chmod(mode)
            case Symlink(target):
                path.symlink_to(target)
            case HardLink(of):
                path.hardlink_to(folder / of)


def _write_file(path: Path, file: File) -> None:
    path.write_bytes(file.content)
    path.chmod(file.mode)
    for name, value in file.xattrs.items():
        os.setxattr(path, name, value)
    if file.mtime_ns is not None:
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns))


@functools.cache
def _keys(fqrn: str) -> RepositoryKeys:
    """Keys once a process: making them takes longer than most tests."""
    return RepositoryKeys.generate(fqrn)
