from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.cas.handle import FileHandle
from lazyfs.errors import ConfigError, FormatError, RevisionNotFound
from lazyfs.repository import history
from lazyfs.repository.history import Tag, find_date, find_tag, read_tags

HASH = "0123456789012345678901234567890123456789"
MARCH = 1_709_294_400  # 2024-03-01T12:00:00Z

_BASE = "name TEXT PRIMARY KEY, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER"
_REVISIONS = {
    0: f"CREATE TABLE tags ({_BASE}, description TEXT)",
    1: f"CREATE TABLE tags ({_BASE}, description TEXT, size INTEGER)",
    3: f"CREATE TABLE tags ({_BASE}, description TEXT, size INTEGER, branch TEXT)",
}


def database(rows: list[tuple[Any, ...]], revision: int = 3, script: str = "") -> FileHandle:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE properties (key TEXT PRIMARY KEY, value TEXT)")
    connection.execute(_REVISIONS[revision])
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO tags VALUES ({marks})", row)
    connection.executescript(script)
    connection.commit()
    content = connection.serialize()
    connection.close()
    return FileHandle.from_bytes(content)


def row(name: str, revision: int, timestamp: int, *rest: object) -> tuple[object, ...]:
    return (name, HASH, revision, timestamp, 0, f"about {name}", *rest)


def test_tags_come_newest_first() -> None:
    rows = [row("a", 1, 10, 4096, ""), row("c", 3, 20, 0, "dev"), row("b", 2, 20, 0, "")]
    tags = read_tags(database(rows), "history")
    assert [tag.name for tag in tags] == ["c", "b", "a"]
    assert tags[2] == Tag("a", Digest.parse(HASH), 1, 10, "about a", 4096)
    assert tags[0].branch == "dev"


@pytest.mark.parametrize(("revision", "rest"), [(0, ()), (1, (5,))])
def test_older_schemas_are_read(revision: int, rest: tuple[int, ...]) -> None:
    (tag,) = read_tags(database([row("a", 1, 10, *rest)], revision), "history")
    assert (tag.size, tag.branch) == (rest[0] if rest else 0, "")


def test_the_algorithm_is_in_the_text() -> None:
    rows = [("a", f"{HASH}-shake128", 1, 10, 0, "", 0, "")]
    (tag,) = read_tags(database(rows), "history")
    assert tag.root_hash.algorithm is Algorithm.SHAKE128


@pytest.mark.parametrize(
    "bad",
    [
        ("a", "", 1, 10, 0, "", 0, ""),
        ("a", None, 1, 10, 0, "", 0, ""),
        ("a", "d41d8cd98f00b204e9800998ecf8427e", 1, 10, 0, "", 0, ""),
        ("a", HASH, "x", 10, 0, "", 0, ""),
        ("a", HASH, 1, b"t", 0, "", 0, ""),
        ("a", HASH, 1, 10, 0, "", -1, ""),
    ],
)
def test_a_tag_that_cannot_be_is_refused(bad: tuple[object, ...]) -> None:
    with pytest.raises(FormatError) as caught:
        read_tags(database([bad]), "the history")
    assert caught.value.object == "the history"


@pytest.mark.parametrize("script", ["DROP TABLE tags", "CREATE VIEW v AS SELECT 1"])
def test_a_database_of_another_shape_is_refused(script: str) -> None:
    with pytest.raises(FormatError):
        read_tags(database([], script=script), "history")


def test_garbage_is_refused() -> None:
    with pytest.raises(FormatError):
        read_tags(FileHandle.from_bytes(b"garbage" * 1000), "history")


def test_too_many_tags_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_TAGS", 1)
    rows = [row("a", 1, 10, 0, ""), row("b", 2, 20, 0, "")]
    with pytest.raises(FormatError, match="too many"):
        read_tags(database(rows), "history")


# --- choosing ------------------------------------------------------------------------------


def tag(name: str, revision: int, timestamp: int, branch: str = "") -> Tag:
    return Tag(name, Digest.parse(HASH), revision, timestamp, "", 0, branch)


TAGS = (
    tag("later", 5, MARCH + 1),
    tag("newest", 3, MARCH),
    tag("second", 4, MARCH - 100),
    tag("branch", 9, MARCH - 50, "dev"),
)


def test_a_tag_is_found_by_its_name() -> None:
    assert find_tag(TAGS, "second").revision == 4
    with pytest.raises(RevisionNotFound, match="no such tag: none"):
        find_tag(TAGS, "none")


def test_a_date_finds_the_highest_revision_of_the_trunk_up_to_then() -> None:
    # As upstream: by revision, not by time.
    assert find_date(TAGS, "2024-03-01T12:00:00Z").name == "second"
    assert find_date(TAGS, "2024-03-01T12:00:01Z").name == "later"
    with pytest.raises(RevisionNotFound):
        find_date(TAGS, "2024-03-01T11:58:19Z")


@pytest.mark.parametrize(
    "date",
    [
        "",
        "2024-03-01",
        "2024-03-01T12:00:00",
        "2024-3-1T12:00:00Z",
        "yesterday",
        "2024-13-01T00:00:00Z",
    ],
)
def test_a_date_has_one_form(date: str) -> None:
    with pytest.raises(ConfigError, match="not a date"):
        find_date(TAGS, date)
