from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace

import pytest

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import PublishError
from lazyfs.publish.history_writer import (
    TRUNK,
    TRUNK_PREVIOUS,
    check_new_name,
    dump_history,
    moved_trunk,
)
from lazyfs.repository.history import Tag


def head(revision: int) -> Tag:
    digest = Digest(Algorithm.SHA1, bytes((revision,)) * 20)
    return Tag(TRUNK, digest, revision, 1000 + revision, "current HEAD", 4096)


def test_first_publish_has_a_trunk_and_nothing_before_it() -> None:
    assert moved_trunk([], head(1), None, "") == [head(1)]


def test_trunk_moves_and_leaves_its_old_place() -> None:
    tags = {t.name: t for t in moved_trunk([head(1)], head(2), "v2", "second")}
    assert tags[TRUNK] == head(2)
    assert tags[TRUNK_PREVIOUS].revision == 1
    assert tags["v2"].root_hash == head(2).root_hash
    assert tags["v2"].description == "second"


def test_tags_stay() -> None:
    tags = moved_trunk([head(1)], head(2), "v2", "")
    later = {t.name: t.revision for t in moved_trunk(tags, head(3), None, "")}
    assert later == {TRUNK: 3, TRUNK_PREVIOUS: 2, "v2": 2}


@pytest.mark.parametrize("name", ["v1", TRUNK, TRUNK_PREVIOUS, "", "a b", "ä", "x\n", "x" * 256])
def test_names_that_a_new_tag_may_not_have(name: str) -> None:
    with pytest.raises(PublishError):
        check_new_name(name, {"v1"})


def test_usual_names() -> None:
    for name in ("v1.0", "rel/2026-05", "generic-2026-05-17T10:30:00Z"):
        check_new_name(name, set())


def test_branches_of_tags_stay() -> None:
    """Upstream's check wants a row for every branch that a tag is on."""
    tags = [head(1), replace(head(5), name="b5", branch="b")]
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(dump_history("a.b", tags, None))
        assert database.execute("SELECT * FROM branches").fetchall() == [
            ("", None, 0),
            ("b", "", 5),
        ]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
