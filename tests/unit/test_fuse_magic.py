from __future__ import annotations

import json
from types import SimpleNamespace
from typing import cast

import pytest
from support.catalogs import CatalogBuilder
from support.memory_store import MemoryStore

from lazyfs.cas.digest import Algorithm
from lazyfs.config.settings import XattrVisibility
from lazyfs.errors import PathNotFound
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.magic import MAX_METAINFO, MagicXattrs
from lazyfs.repository.revision import Revision

CHUNKS = 2000

REASON = b"metainfo "
"""What is answered for want of metainfo begins so."""


class FakeRepository:
    """Knows what these attributes ask for."""

    fqrn = "test.example.org"
    external_downloader = None
    downloader = SimpleNamespace(status=lambda: SimpleNamespace(timeout_direct=9.0))
    content: bytes | None = None

    def metainfo(self) -> bytes | None:
        if self.content == b"gone":
            raise PathNotFound("the object is gone")
        return self.content


@pytest.fixture
def repository() -> FakeRepository:
    return FakeRepository()


@pytest.fixture
def magic(repository: FakeRepository) -> MagicXattrs:
    settings = SimpleNamespace(
        protected_xattrs=(), privileged_gids=(), xattr_visibility=XattrVisibility.ALWAYS
    )
    fake = SimpleNamespace(settings=settings, repository=repository)
    return MagicXattrs(cast("Filesystem", fake))


@pytest.fixture
def revision() -> Revision:
    digest = Algorithm.SHA1.digest(b"x")
    chunks: list[tuple[object, object, object]] = [(n, 1, digest.raw) for n in range(CHUNKS)]
    builder = CatalogBuilder().chunked(b"/chunked", CHUNKS, chunks).file(b"/whole", digest, 1)
    return builder.revision(MemoryStore())


def ask(magic: MagicXattrs, name: bytes, revision: Revision, path: bytes = b"") -> bytes | None:
    return magic.value(name, revision.lookup(path), revision)


def test_a_plain_value_has_one_page(magic: MagicXattrs, revision: Revision) -> None:
    for name in (b"user.fqrn", b"user.fqrn~0"):
        assert ask(magic, name, revision) == b"test.example.org"
    assert ask(magic, b"user.fqrn~?", revision) == b"num_pages, 1"
    assert ask(magic, b"user.fqrn~1", revision) is None
    shown = ask(magic, b"user.fqrn@0", revision)
    assert shown is not None
    assert shown.endswith(b"test.example.org")


def test_each_page_of_chunks_begins_with_the_header(magic: MagicXattrs, revision: Revision) -> None:
    assert ask(magic, b"user.chunk_list~?", revision, b"/chunked") == b"num_pages, 3"
    lines: list[bytes] = []
    for page in range(3):
        text = ask(magic, b"user.chunk_list~%d" % page, revision, b"/chunked")
        assert text is not None
        header, *rest = text.splitlines()
        assert header == b"hash,offset,size"
        lines += rest
    assert [line.split(b",")[1] for line in lines] == [b"%d" % n for n in range(CHUNKS)]
    digest = str(Algorithm.SHA1.digest(b"x")).encode()
    whole = ask(magic, b"user.chunk_list", revision, b"/whole")
    assert whole == b"hash,offset,size\n" + digest + b",0,1\n"


def test_long_metainfo_is_in_one_piece(
    magic: MagicXattrs, repository: FakeRepository, revision: Revision
) -> None:
    repository.content = json.dumps({"text": ["x" * 79] * 600}, indent=0).encode()
    assert ask(magic, b"user.repo_metainfo", revision) == repository.content


@pytest.mark.parametrize("content", [None, b"gone", b"x" * (MAX_METAINFO + 1)])
def test_metainfo_that_cannot_be_shown_gives_a_reason(
    content: bytes | None, magic: MagicXattrs, repository: FakeRepository, revision: Revision
) -> None:
    repository.content = content
    shown = ask(magic, b"user.repo_metainfo", revision)
    assert shown is not None
    assert shown.startswith(REASON)


def test_without_an_external_server_the_rest_is_told(
    magic: MagicXattrs, revision: Revision
) -> None:
    names = (b"user.external_host", b"user.external_timeout", b"user.proxy_list_external")
    assert [ask(magic, name, revision) for name in names] == [b"", b"9", b"DIRECT\n"]
