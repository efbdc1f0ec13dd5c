from __future__ import annotations

import datetime
import io
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from support.publishing import PublishedRepository, make_repository

from lazyfs.errors import (
    CertificateRefused,
    ConfigError,
    ObjectMissing,
    PathNotFound,
    RevisionNotFound,
    SignatureError,
)
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.repository.aio import open_file
from lazyfs.repository.history import DATE_FORMAT
from lazyfs.repository.manifest import MANIFEST_PATH
from lazyfs.repository.repository import Repository
from lazyfs.repository.whitelist import WHITELIST_PATH

SIZES = ChunkSizes(minimum=1024, average=2048, maximum=4096)
BIG = os.urandom(50_000)


@pytest.fixture
def published(tmp_path: Path) -> PublishedRepository:
    """Revision 2, tagged v1, has ``old``; revision 3, tagged v2, has ``big``."""
    repository = make_repository(tmp_path, {"old": b"first"}, tag="v1", sizes=SIZES)
    repository.publish({"big": BIG, "text": "zeile\nß\n".encode()}, tag="v2")
    return repository


def opened(published: PublishedRepository, tmp_path: Path, **options: Any) -> Repository:
    return Repository.open(
        published.root, pubkey=published.pubkey, cache=tmp_path / "cache", **options
    )


# --- which revision ------------------------------------------------------------------------


def test_any_revision_is_opened_by_tag_date_or_root_hash(
    published: PublishedRepository, tmp_path: Path
) -> None:
    with opened(published, tmp_path) as newest:
        assert {node.name for node in newest.current.listdir(b"")} == {b"big", b"text"}
        tag = next(tag for tag in newest.tags() if tag.name == "v1")
        moment = datetime.datetime.fromtimestamp(tag.timestamp, datetime.UTC)
        with newest.revision(tag="v1") as beside:
            assert beside.root_hash == tag.root_hash
    # Both may be published within one second; the date finds the newest of then.
    late = moment + datetime.timedelta(days=1)
    choices = {
        "tag": ("v1", b"old"),
        "date": (late.strftime(DATE_FORMAT), b"big"),
        "root_hash": (str(tag.root_hash), b"old"),
    }
    for name, (value, expected) in choices.items():
        with opened(published, tmp_path, **{name: value}) as repository:
            assert expected in {node.name for node in repository.current.listdir(b"")}, name
            assert repository.refresh() is None


def test_a_revision_that_is_not_there_is_not_found(
    published: PublishedRepository, tmp_path: Path
) -> None:
    for options in ({"tag": "v9"}, {"date": "1999-01-01T00:00:00Z"}):
        with pytest.raises(RevisionNotFound):
            opened(published, tmp_path, **options)
    with pytest.raises(ObjectMissing):
        opened(published, tmp_path, root_hash="1" * 40)
    for options in ({"date": "yesterday"}, {"root_hash": "x"}, {"tag": "v1", "root_hash": "1"}):
        with pytest.raises(ConfigError):
            opened(published, tmp_path, **options)


def test_with_a_root_hash_no_signature_is_asked_for(
    published: PublishedRepository, tmp_path: Path
) -> None:
    with opened(published, tmp_path) as newest:
        root_hash = str(newest.current.root_hash)
    (published.root / WHITELIST_PATH).unlink()
    manifest = published.root / MANIFEST_PATH
    manifest.write_bytes(manifest.read_bytes()[:-1])
    with pytest.raises(SignatureError):
        opened(published, tmp_path / "other")
    with opened(published, tmp_path / "other", root_hash=root_hash) as repository:
        assert repository.manifest is None
        with repository.current.open_file("/big") as file:
            assert file.readall() == BIG


@pytest.mark.parametrize("how", ["tag", "date", "root_hash", "newest"])
def test_no_way_leads_round_a_blacklisted_revision(
    how: str, published: PublishedRepository, tmp_path: Path
) -> None:
    with opened(published, tmp_path) as newest:
        old = next(tag for tag in newest.tags() if tag.name == "v1")
    date = datetime.datetime.fromtimestamp(old.timestamp, datetime.UTC).strftime(DATE_FORMAT)
    options = {"tag": "v1", "date": date, "root_hash": str(old.root_hash)}
    lowest = 4 if how in ("newest", "date") else old.revision + 1
    blacklist = tmp_path / "blacklist"
    blacklist.write_text(f"<{published.fqrn} {lowest}\n")
    choice: dict[str, Any] = {} if how == "newest" else {how: options[how]}
    with pytest.raises(CertificateRefused, match="blacklisted"):
        Repository.open(
            published.root,
            pubkey=published.pubkey,
            cache=tmp_path / "cache",
            overrides={"CVMFS_BLACKLIST": str(blacklist)},
            **choice,
        )


# --- files as streams ----------------------------------------------------------------------


def test_a_file_is_a_standard_stream(published: PublishedRepository, tmp_path: Path) -> None:
    with opened(published, tmp_path) as repository:
        with repository.current.open_file("/big") as raw:
            assert isinstance(raw, io.RawIOBase)
            assert io.BufferedReader(raw).read() == BIG
        with repository.current.open_file("/text") as raw:
            assert list(io.TextIOWrapper(io.BufferedReader(raw), "utf-8")) == ["zeile\n", "ß\n"]


def test_the_asynchronous_twin_gives_the_same(
    published: PublishedRepository, tmp_path: Path
) -> None:
    async def use(repository: Repository) -> None:
        async with await open_file(repository.current, "/big") as file:
            assert await file.read(10) == BIG[:10]
            assert file.seek(-10, os.SEEK_END) == len(BIG) - 10
            assert await file.read() == BIG[-10:]
            assert await file.read() == b""
            assert file.seek(0) == 0
            assert await file.read() == BIG
            assert BIG.startswith(await file.pread(5, 0))
            assert (await file.pread(100, 30_000))[:1] == BIG[30_000:30_001]
        with pytest.raises(ValueError, match="closed"):
            await file.read(1)
        with pytest.raises(PathNotFound):
            await open_file(repository.current, "/none")

    with opened(published, tmp_path) as repository:
        trio.run(use, repository)
