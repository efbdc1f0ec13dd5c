"""Writing history databases and reflogs. Sources: ``history_sql.cc``, ``reflog_sql.cc``."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.errors import FormatError, PublishError
from lazyfs.repository.history import Tag

TRUNK = "trunk"
TRUNK_PREVIOUS = "trunk-previous"

REFLOG_CATALOG, REFLOG_CERTIFICATE, REFLOG_HISTORY, REFLOG_METAINFO = range(4)

REFLOG_KINDS = {
    REFLOG_CATALOG: ObjectKind.CATALOG,
    REFLOG_CERTIFICATE: ObjectKind.CERTIFICATE,
    REFLOG_HISTORY: ObjectKind.HISTORY,
    REFLOG_METAINFO: ObjectKind.METAINFO,
}
"""What the types of the reflog's rows are stored as."""

_TAG_NAME = re.compile(r"[A-Za-z0-9._/:-]{1,255}")

_HISTORY = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER,
    CONSTRAINT pk_branch PRIMARY KEY (branch),
    FOREIGN KEY (parent) REFERENCES branches (branch),
    CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)));
CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER,
    description TEXT, size INTEGER, branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name),
    FOREIGN KEY (branch) REFERENCES branches (branch));
CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash));
INSERT INTO branches VALUES ('', NULL, 0);
"""

_REFLOG = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER,
    CONSTRAINT pk_refs PRIMARY KEY (hash));
"""


@dataclass(frozen=True, slots=True)
class Reference:
    """A row of the reflog: an object that a revision begins with."""

    digest: Digest
    type: int
    """One of ``REFLOG_…``."""
    timestamp: int
    """Unix time."""


def dump_history(fqrn: str, tags: Iterable[Tag], previous: Digest | None) -> bytes:
    """A history database.

    Args:
        fqrn: The repository.
        tags: All tags. Their branches are all that is known of branches.
        previous: The history object that it follows.
    """
    properties = {"schema": "1.0", "schema_revision": "3", "fqrn": fqrn}
    if previous is not None:
        properties["previous_revision"] = str(previous)
    tags = list(tags)
    first: dict[str, int] = {}
    for tag in tags:
        if tag.branch:
            first[tag.branch] = min(tag.revision, first.get(tag.branch, tag.revision))
    branches = [(branch, "", revision) for branch, revision in first.items()]
    rows = [
        (t.name, str(t.root_hash), t.revision, t.timestamp, t.description, t.size, t.branch)
        for t in tags
    ]
    return _dump(
        _HISTORY,
        properties,
        ("INSERT INTO branches VALUES (?, ?, ?)", branches),
        ("INSERT INTO tags VALUES (?, ?, ?, ?, 0, ?, ?, ?)", rows),
    )


def dump_reflog(fqrn: str, references: Iterable[Reference]) -> bytes:
    """A reflog; of references to the same object the first counts."""
    properties = {"schema": "1.0", "schema_revision": "0", "fqrn": fqrn}
    rows = [(str(r.digest), r.type, r.timestamp) for r in references]
    return _dump(_REFLOG, properties, ("INSERT OR IGNORE INTO refs VALUES (?, ?, ?)", rows))


def parse_reflog(content: bytes) -> list[Reference]:
    """The rows of a reflog.

    Raises:
        FormatError: it is damaged.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        try:
            database.deserialize(content)
            rows = database.execute("SELECT hash, type, timestamp FROM refs").fetchall()
        except sqlite3.Error as exc:
            raise FormatError(f"damaged database: {exc}", object="reflog") from exc
    return [
        Reference(Digest.parse_content(text), kind, timestamp) for text, kind, timestamp in rows
    ]


def moved_trunk(tags: Iterable[Tag], head: Tag, name: str | None, description: str) -> list[Tag]:
    """The tags after a publish: ``trunk`` moves to ``head``, its old place is kept beside it.

    Args:
        tags: The tags so far.
        head: The new revision, named ``trunk``.
        name: A further tag for it.
        description: Of that tag.

    Raises:
        PublishError: as `check_new_name`.
    """
    by_name = {tag.name: tag for tag in tags}
    if name is not None:
        check_new_name(name, by_name)
    if old := by_name.get(TRUNK):
        by_name[TRUNK_PREVIOUS] = _renamed(old, TRUNK_PREVIOUS, "previous head")
    by_name[TRUNK] = head
    if name is not None:
        by_name[name] = _renamed(head, name, description)
    return list(by_name.values())


def check_new_name(name: str, taken: Container[str]) -> None:
    """Return if a new tag may have this name.

    Raises:
        PublishError: it is taken, or cannot be a name; a tag never moves by accident.
    """
    if not _TAG_NAME.fullmatch(name) or name in (TRUNK, TRUNK_PREVIOUS):
        raise PublishError(
            f"not a tag name: {name!r}", hint="use letters, digits and . _ / : -, but no trunk"
        )
    if name in taken:
        raise PublishError(f"there is a tag {name!r} already", hint="choose another name")


def _renamed(tag: Tag, name: str, description: str) -> Tag:
    return Tag(name, tag.root_hash, tag.revision, tag.timestamp, description, tag.size, tag.branch)


def _dump(
    tables: str,
    properties: dict[str, str],
    *inserts: tuple[str, Sequence[tuple[object, ...]]],
) -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.executescript(tables)
        database.executemany("INSERT INTO properties VALUES (?, ?)", list(properties.items()))
        for insert, rows in inserts:
            database.executemany(insert, rows)
        database.commit()
        return database.serialize()
