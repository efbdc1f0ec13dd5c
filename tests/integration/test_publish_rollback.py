from __future__ import annotations

import contextlib
import sqlite3
import zlib
from pathlib import Path

import pytest
from support.publishing import Item, PublishedRepository, Symlink, make_repository

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.errors import PublishError, RevisionNotFound
from lazyfs.publish.history_writer import TRUNK, TRUNK_PREVIOUS
from lazyfs.publish.ledger import Ledger
from lazyfs.publish.rollback import roll_back
from lazyfs.repository.check import check_revision
from lazyfs.repository.node import Node
from lazyfs.repository.repository import Repository

FIRST: dict[str, Item] = {
    "a": b"1",
    "d/.cvmfscatalog": b"",
    "d/x": b"deep",
    "gone": b"gone",
    "l": Symlink("a"),
}


@pytest.fixture
def made(tmp_path: Path) -> PublishedRepository:
    repository = make_repository(tmp_path, FIRST, tag="v1")
    repository.publish({"a": b"2", "d/.cvmfscatalog": b"", "d/x": b"other"}, tag="v2")
    repository.publish({"a": b"3"})
    return repository


def ledger(made: PublishedRepository) -> Ledger:
    return made.publisher.ledger


def nodes(made: PublishedRepository, cache: Path, tag: str | None = None) -> list[Node]:
    """The tree, with nothing in it that only says where it comes from."""
    with Repository.open(made.root, pubkey=made.pubkey, cache=cache, tag=tag) as repository:
        assert check_revision(repository.current).problems == ()
        return list(repository.current.walk())


def properties(made: PublishedRepository, root: Digest) -> dict[str, str]:
    stored = (made.root / root.object_path(ObjectKind.CATALOG)).read_bytes()
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(zlib.decompress(stored))
        return {key: str(value) for key, value in database.execute("SELECT * FROM properties")}


def test_the_old_tree_is_the_newest_revision(made: PublishedRepository, tmp_path: Path) -> None:
    left = ledger(made).head().manifest
    objects = set((made.root / "data").glob("??/*"))
    result = roll_back(ledger(made), "v1", tag="again", description="v2 was bad")
    manifest = ledger(made).head().manifest
    assert (result.revision, result.root_hash) == (4, manifest.root_catalog)
    assert (manifest.revision, manifest.ttl) == (4, left.ttl)
    assert manifest.timestamp >= left.timestamp
    assert (result.left.number, result.left.root_hash) == (3, left.root_catalog)
    assert (result.restored.number, result.restored.tag) == (1, "v1")
    assert nodes(made, tmp_path / "cache") == nodes(made, tmp_path / "cache", "v1")
    found = properties(made, manifest.root_catalog)
    assert found["revision"] == "4"
    assert found["previous_revision"] == str(left.root_catalog)
    assert found["last_modified"] == str(manifest.timestamp)
    assert found["TTL"] == str(left.ttl)
    # One catalog and one history: nothing else is written again.
    new = set((made.root / "data").glob("??/*")) - objects
    assert sorted(path.name[-1] for path in new) == ["C", "H"]


def test_tags_stay_and_trunk_moves(made: PublishedRepository) -> None:
    roll_back(ledger(made), "v1", tag="again", description="v2 was bad")
    tags = {tag.name: tag for tag in ledger(made).tags(ledger(made).head())}
    assert {name: tag.revision for name, tag in tags.items()} == {
        "v1": 1,
        "v2": 2,
        "again": 4,
        TRUNK: 4,
        TRUNK_PREVIOUS: 3,
    }
    assert tags["again"].description == "v2 was bad"
    assert tags[TRUNK].root_hash == ledger(made).head().manifest.root_catalog
    assert tags[TRUNK].size == ledger(made).head().manifest.catalog_size


def test_without_a_name_the_last_publish_is_undone(
    made: PublishedRepository, tmp_path: Path
) -> None:
    expected = nodes(made, tmp_path / "cache", TRUNK_PREVIOUS)
    assert roll_back(ledger(made)).restored.number == 2
    assert nodes(made, tmp_path / "cache") == expected


def test_an_untagged_revision_is_found_by_its_hash(
    made: PublishedRepository, tmp_path: Path
) -> None:
    third = ledger(made).head().manifest.root_catalog
    expected = nodes(made, tmp_path / "cache")
    made.publish({"a": b"4"})
    made.publish({"a": b"5"})
    roll_back(ledger(made), str(third))
    assert nodes(made, tmp_path / "cache") == expected


def test_publishing_goes_on_after_a_rollback(made: PublishedRepository, tmp_path: Path) -> None:
    roll_back(ledger(made), "v1")
    expected = nodes(made, tmp_path / "cache")
    made.publish({"a": b"5"})
    roll_back(ledger(made))
    assert nodes(made, tmp_path / "cache") == expected
    assert ledger(made).head().manifest.revision == 6


def test_what_cannot_be_gone_back_to(made: PublishedRepository) -> None:
    before = ledger(made).head()
    with pytest.raises(PublishError, match="newest one already"):
        roll_back(ledger(made), TRUNK)
    with pytest.raises(RevisionNotFound):
        roll_back(ledger(made), "v9")
    with pytest.raises(PublishError, match="'v2' already"):
        roll_back(ledger(made), "v1", tag="v2")
    assert ledger(made).head() == before


def test_a_client_that_has_the_bad_revision_takes_the_rollback(
    made: PublishedRepository, tmp_path: Path
) -> None:
    with Repository.open(made.root, pubkey=made.pubkey, cache=tmp_path / "cache") as repository:
        roll_back(ledger(made), "v1")
        newer = repository.refresh()
        assert newer is not None
        with newer:
            assert newer.number == 4
            with newer.open_file(b"/gone") as file:
                assert file.read() == b"gone"


def test_catalogs_that_are_too_old_are_not_published_again(
    made: PublishedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazyfs.publish.rollback.NEWEST_SCHEMA", 2.6)
    with pytest.raises(PublishError, match=r"schema 2\.5"):
        roll_back(ledger(made), "v1")
    assert ledger(made).head().manifest.revision == 3
