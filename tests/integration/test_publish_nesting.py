"""Nested catalogs by rules and by size, grafts and external files."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import pytest
from support.publishing import FQRN, PublishedRepository, Tree, make_repository, write_tree

from lazyfs.cas.codec import Codec
from lazyfs.errors import PublishError
from lazyfs.net.static_server import StaticServer
from lazyfs.publish.balance import CatalogWeights
from lazyfs.publish.ingest import TreeOptions
from lazyfs.publish.pipeline import ContentPipeline, Pending
from lazyfs.publish.source import SourceItem
from lazyfs.repository.check import check_revision
from lazyfs.repository.repository import Repository

MARKER, AUTOMATIC = ".cvmfscatalog", ".cvmfsautocatalog"


def opened(
    repository: PublishedRepository, tmp_path: Path, *, external_url: str | None = None
) -> Repository:
    return Repository.open(
        repository.root,
        pubkey=repository.pubkey,
        cache=tmp_path / "cache",
        external_url=external_url,
    )


def catalogs(repository: PublishedRepository, tmp_path: Path) -> set[str]:
    """Where nested catalogs begin; the revision is checked on the way."""
    with opened(repository, tmp_path) as found:
        assert not check_revision(found.current).problems
        return {n.path.decode() for n in found.current.walk() if n.mountpoint}


TREE: Tree = {f"sw/{name}/{version}/f": b"x" for name in "ab" for version in ("1", "2")}


def test_rules_begin_catalogs_and_go_on_to_do_so(tmp_path: Path) -> None:
    assert not isinstance(TREE, Path)
    rules = {".cvmfsdirtab": b"/sw/*\n/sw/*/*\n! /sw/b/2\n"}
    repository = make_repository(tmp_path, {**TREE, **rules})
    expected = {"/sw/a", "/sw/b", "/sw/a/1", "/sw/a/2", "/sw/b/1"}
    assert catalogs(repository, tmp_path) == expected
    # The source has no markers: they stay all the same. What is new gets one.
    repository.publish({**TREE, **rules, "sw/c/1/f": b"new"})
    assert catalogs(repository, tmp_path) == expected | {"/sw/c", "/sw/c/1"}
    repository.publish({**TREE, ".cvmfsdirtab": b"/sw/*/2\n"})
    assert catalogs(repository, tmp_path) >= {"/sw/a/2", "/sw/b/2"}


def test_rules_that_cannot_be_end_the_transaction(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"a": b""})
    with pytest.raises(PublishError, match="not a valid dirtab"):
        repository.publish({".cvmfsdirtab": b"relative/path\n"})


def test_large_catalogs_are_split_and_stay_so(tmp_path: Path) -> None:
    tree = {f"d{top}/e{sub}/f{n}": b"" for top in range(3) for sub in range(3) for n in range(9)}
    options = TreeOptions(weights=CatalogWeights(maximum=40, minimum=10))
    repository = make_repository(tmp_path, tree, options=options)
    split = catalogs(repository, tmp_path)
    assert split
    with opened(repository, tmp_path) as found:
        for path in split:
            names = {node.name for node in found.current.listdir(path.encode())}
            assert {MARKER.encode(), AUTOMATIC.encode()} <= names
            counters = found.current.tree.lister(path.encode()).counters()
            assert 10 <= sum(counters[f"self_{kind}"] for kind in ("regular", "dir")) <= 40
    repository.publish({**tree, "more": b"x"})
    assert catalogs(repository, tmp_path) == split


def test_grafts_name_content_that_is_not_read(tmp_path: Path) -> None:
    content = b"somewhere else" * 100
    stored = zlib.compress(content)
    digest = hashlib.sha1(stored).hexdigest()
    marker = f"size={len(content)}\nchecksum={digest}\ncompression=zlib\n"
    tree = {"file": b"", ".cvmfsgraft-file": marker.encode()}
    repository = make_repository(tmp_path, tree)
    place = repository.root / "data" / digest[:2] / digest[2:]
    place.write_bytes(stored)
    with opened(repository, tmp_path) as found:
        assert [node.name for node in found.current.listdir(b"")] == [b"file"]
        with found.current.open_file("/file") as file:
            assert file.read() == content
    with pytest.raises(PublishError, match="graft without the file"):
        repository.publish({".cvmfsgraft-other": marker.encode()})


def test_external_content_is_served_and_not_stored(tmp_path: Path) -> None:
    content = b"served as it is"
    repository = make_repository(
        tmp_path, {"data/file": content}, options=TreeOptions(external=True)
    )
    name = hashlib.sha1(content).hexdigest()
    assert not (repository.root / "data" / name[:2] / name[2:]).exists()
    with (
        StaticServer(repository.source) as server,
        opened(repository, tmp_path, external_url=server.url) as found,
    ):
        node = found.current.lookup(b"/data/file")
        assert node.external
        assert node.codec is Codec.NONE
        with found.current.open_file(node) as file:
            assert file.read() == content
        assert found.current.counters()["external"] == 1


def test_unchanged_content_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_repository(tmp_path, {})
    folder = tmp_path / "tree"
    write_tree(folder, {"old/file": b"content", "old/other": b"x"})
    long_ago = 1_000_000_000_000_000_000
    for path in (folder / "old/file", folder / "old/other"):
        os.utime(path, ns=(long_ago, long_ago))
    repository.publish(folder)
    (folder / "old/other").chmod(0o755)
    (folder / "new").write_bytes(b"new")
    read: list[bytes] = []
    original = ContentPipeline.put

    def watched(self: ContentPipeline, item: SourceItem, codec: Codec) -> Pending:
        read.append(item.path)
        return original(self, item, codec)

    monkeypatch.setattr(ContentPipeline, "put", watched)
    repository.publish(folder)
    assert read == [b"/new"]
    with opened(repository, tmp_path) as found:
        assert found.current.lookup(b"/old/other").mode & 0o777 == 0o755
        assert found.fqrn == FQRN
