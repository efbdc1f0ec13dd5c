from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.reference import NAMES, TAGS, Reference, ReferenceRepositories, Truth

from lazyfs.cas.digest import Digest
from lazyfs.net.static_server import StaticServer
from lazyfs.repository.node import Node
from lazyfs.repository.repository import Repository
from lazyfs.repository.revision import Revision

MAGIC = {
    "user.chunk_list",
    "user.chunks",
    "user.compression",
    "user.external_file",
    "user.hash",
    "user.lhash",
}


@pytest.fixture
def external_url(references: ReferenceRepositories) -> Iterator[str]:
    with StaticServer(references.external_data()) as server:
        yield server.url


def open_reference(
    reference: Reference, cache: Path, *, tag: str | None = None, external_url: str | None = None
) -> Repository:
    return Repository.open(
        reference.folder, pubkey=reference.key, cache=cache, tag=tag, external_url=external_url
    )


def shown_size(revision: Revision, node: Node) -> int:
    return len(revision.readlink(node)) if node.is_symlink else node.size


def content_digest(revision: Revision, node: Node) -> str:
    digest = hashlib.sha256()
    with revision.open_file(node) as file:
        while piece := file.read(1 << 18):
            digest.update(piece)
    return digest.hexdigest()


def chunk_list(revision: Revision, node: Node) -> bytes:
    """The magic attribute ``user.chunk_list`` as the real client writes it."""
    lines = ["hash,offset,size"]
    if node.chunked:
        extents = revision.extents(node)
        lines += [f"{e.ref.digest},{e.offset},{e.size}" for e in extents]
    else:
        lines.append(f"{node.digest},0,{node.size}")
    return "".join(f"{line}\n" for line in lines).encode()


def check_metadata(revision: Revision, truth: Truth) -> None:
    node = revision.lookup(truth.path)
    seen = (node.mode, shown_size(revision, node), node.mtime_ns, node.nlink, node.uid, node.gid)
    expected = (truth.mode, truth.size, truth.mtime_ns, truth.nlink, truth.uid, truth.gid)
    assert seen == expected, truth.path
    assert node.rdev == truth.rdev, truth.path
    if truth.target is not None:
        assert revision.readlink(node) == truth.target, truth.path
    stored = {name: value for name, value in truth.xattrs.items() if name not in MAGIC}
    shown = {key.decode(): value for key, value in revision.xattrs(node).items()}
    if not node.is_symlink:
        assert shown == stored, truth.path


def check_magic(revision: Revision, truth: Truth) -> None:
    node = revision.lookup(truth.path)
    magic = truth.xattrs
    assert magic["user.compression"] == node.codec.name.lower().encode()
    assert magic["user.external_file"] == str(int(node.external)).encode()
    assert magic["user.chunk_list"] == chunk_list(revision, node), truth.path
    count = len(revision.extents(node)) if node.chunked else 1
    assert magic["user.chunks"] == str(count).encode()
    if "user.hash" in magic:
        assert node.digest == Digest.parse(magic["user.hash"].decode())
    else:
        assert node.digest is None


def check_all(revision: Revision, truths: list[Truth]) -> None:
    assert sorted(node.path for node in revision.walk()) == sorted(t.path for t in truths)
    for truth in truths:
        check_metadata(revision, truth)
        if truth.sha256 is not None:
            check_magic(revision, truth)
            node = revision.lookup(truth.path)
            assert content_digest(revision, node) == truth.sha256, truth.path


@pytest.mark.parametrize("name", NAMES)
def test_the_newest_revision_is_what_the_real_client_showed(
    name: str, references: ReferenceRepositories, external_url: str, tmp_path: Path
) -> None:
    reference = references.get(name)
    with open_reference(reference, tmp_path / "cache", external_url=external_url) as repository:
        check_all(repository.current, reference.truth())


@pytest.mark.parametrize("tag", TAGS)
def test_a_tagged_revision_is_what_the_real_client_showed(
    tag: str, references: ReferenceRepositories, tmp_path: Path
) -> None:
    reference = references.get("history")
    with open_reference(reference, tmp_path / "cache", tag=tag) as repository:
        assert repository.current.tag == tag
        check_all(repository.current, reference.truth(tag))
