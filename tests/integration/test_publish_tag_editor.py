from __future__ import annotations

from pathlib import Path

import pytest
from support.publishing import PublishedRepository, make_repository

from lazyfs.cas.digest import ObjectKind
from lazyfs.errors import PublishError, RevisionNotFound
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.history_writer import TRUNK, TRUNK_PREVIOUS
from lazyfs.publish.lease import held
from lazyfs.publish.ledger import Ledger
from lazyfs.publish.tag_editor import TagEditor
from lazyfs.repository.history import Tag
from lazyfs.repository.repository import Repository


@pytest.fixture
def made(tmp_path: Path) -> PublishedRepository:
    """Revision 1 is tagged, 2 is not, 3 is the newest."""
    repository = make_repository(tmp_path, {"a": b"1"}, tag="v1")
    repository.publish({"a": b"2", "d/.cvmfscatalog": b""})
    repository.publish({"a": b"3"})
    return repository


def ledger(made: PublishedRepository) -> Ledger:
    return made.publisher.ledger


def tags(made: PublishedRepository) -> dict[str, Tag]:
    return {tag.name: tag for tag in ledger(made).tags(ledger(made).head())}


def content(made: PublishedRepository, cache: Path, tag: str) -> bytes:
    with (
        Repository.open(made.root, pubkey=made.pubkey, cache=cache, tag=tag) as repository,
        repository.current.open_file(b"/a") as file,
    ):
        return file.read()


def test_the_newest_revision_gets_a_name(made: PublishedRepository, tmp_path: Path) -> None:
    before = ledger(made).head()
    tag = TagEditor(ledger(made)).add("release/3", description="the third")
    after = ledger(made).head()
    assert tags(made)["release/3"] == tag
    assert (tag.root_hash, tag.revision) == (before.manifest.root_catalog, 3)
    assert (tag.size, tag.description) == (before.manifest.catalog_size, "the third")
    assert tag.timestamp == before.manifest.timestamp
    # The revision is the same one for clients; only tags and time are new.
    assert after.manifest.root_catalog == before.manifest.root_catalog
    assert after.manifest.revision == before.manifest.revision
    assert after.manifest.timestamp >= before.manifest.timestamp
    assert after.manifest.history != before.manifest.history
    assert content(made, tmp_path / "cache", "release/3") == b"3"


def test_every_known_revision_gets_a_name_by_tag_or_hash(
    made: PublishedRepository, tmp_path: Path
) -> None:
    editor = TagEditor(ledger(made))
    assert editor.add("first", revision="v1").revision == 1
    second = tags(made)[TRUNK_PREVIOUS].root_hash
    made.publish({"a": b"4"})  # now no tag names the second revision
    assert second not in {tag.root_hash for tag in tags(made).values()}
    tag = editor.add("second", revision=str(second), description="late")
    assert (tag.revision, tag.root_hash) == (2, second)
    assert content(made, tmp_path / "cache", "first") == b"1"
    assert content(made, tmp_path / "cache", "second") == b"2"


def test_what_is_no_known_revision_gets_no_name(made: PublishedRepository) -> None:
    editor = TagEditor(ledger(made))
    with pytest.raises(RevisionNotFound, match="no such tag"):
        editor.add("x", revision="v9")
    with pytest.raises(RevisionNotFound, match="reflog"):
        editor.add("x", revision="ab" * 20)
    # A catalog that is there is not enough: nothing says that the rest of its revision is.
    catalogs = {p.parent.name + p.name[:-1] for p in (made.root / "data").glob("??/*C")}
    (nested,) = catalogs - {str(reference.digest) for reference in ledger(made).references()}
    with pytest.raises(RevisionNotFound):
        editor.add("x", revision=nested)
    assert "x" not in tags(made)


def test_a_revision_whose_catalog_is_lost_gets_no_name(made: PublishedRepository) -> None:
    lost = tags(made)["v1"].root_hash
    (made.root / lost.object_path(ObjectKind.CATALOG)).unlink()
    with pytest.raises(Exception, match="cannot read"):
        TagEditor(ledger(made)).add("x", revision="v1")
    assert "x" not in tags(made)


def test_names_are_free_and_well_formed(made: PublishedRepository) -> None:
    for name in ("v1", TRUNK, TRUNK_PREVIOUS, "a b", ""):
        with pytest.raises(PublishError):
            TagEditor(ledger(made)).add(name)
    assert set(tags(made)) == {"v1", TRUNK, TRUNK_PREVIOUS}


def test_tags_are_removed_all_or_none(made: PublishedRepository) -> None:
    editor = TagEditor(ledger(made))
    editor.add("v3")
    before = ledger(made).head()
    with pytest.raises(RevisionNotFound, match="v2"):
        editor.remove(["v1", "v2"])
    for protected in (TRUNK, TRUNK_PREVIOUS):
        with pytest.raises(PublishError, match="cannot be removed"):
            editor.remove(["v1", protected])
    assert editor.remove([]) == ()
    assert ledger(made).head() == before
    assert {tag.name for tag in editor.remove(["v1", "v3"])} == {"v1", "v3"}
    assert set(tags(made)) == {TRUNK, TRUNK_PREVIOUS}
    assert ledger(made).head().manifest.revision == 3


def test_another_publisher_at_work_is_respected(made: PublishedRepository) -> None:
    with held(ledger(made).target, "test"), pytest.raises(PublishError, match="another publisher"):
        TagEditor(ledger(made)).add("x")
    TagEditor(ledger(made)).add("x")


def test_publishing_goes_on_after_tags_were_edited(made: PublishedRepository) -> None:
    TagEditor(ledger(made)).add("v3")
    result = made.publish({"a": b"4"}, tag="v4")
    assert result.revision == 4
    assert {name: tag.revision for name, tag in tags(made).items()} == {
        "v1": 1,
        "v3": 3,
        "v4": 4,
        TRUNK: 4,
        TRUNK_PREVIOUS: 3,
    }


def test_no_repository_is_said_before_anything_is_written(
    made: PublishedRepository, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PublishError, match="publish init"):
        TagEditor(Ledger(DirectoryTarget(empty), made.keys, made.fqrn)).add("x")
    assert list(empty.iterdir()) == []
