"""Going back: a new revision with the tree of an older one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import PublishError
from lazyfs.publish.content import ContentStore
from lazyfs.publish.history_writer import TRUNK, TRUNK_PREVIOUS, check_new_name, moved_trunk
from lazyfs.publish.known_revision import KnownRevision, find_revision
from lazyfs.publish.lease import held
from lazyfs.publish.ledger import Ledger
from lazyfs.publish.target_store import TargetStore, opened_store
from lazyfs.repository.catalog import NEWEST_SCHEMA, SCHEMA_TOLERANCE
from lazyfs.repository.history import Tag

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class RollbackResult:
    """What a rollback did."""

    revision: int
    """The new one."""
    root_hash: Digest
    left: KnownRevision
    """The newest revision until then, now tagged ``trunk-previous``."""
    restored: KnownRevision
    """The revision whose tree the new one has."""


def roll_back(
    ledger: Ledger,
    to: str = TRUNK_PREVIOUS,
    *,
    tag: str | None = None,
    description: str = "",
    wait: float = 0.0,
) -> RollbackResult:
    """Publish the tree of an older revision as the newest one.

    Clients never go back, so this goes on: the old root catalog is published again with the next
    revision number, as the successor of the newest one, and nested catalogs and content are used
    as they are. The repository's TTL stays as it is now. All tags stay where they are but
    ``trunk`` and ``trunk-previous``; the real server drops those that are newer than the target,
    and moves the target's own tag to the new revision.

    Args:
        ledger: Of the repository.
        to: A tag or a root hash.
        tag: Name the new revision.
        description: Of that tag.
        wait: Seconds to wait for another publisher to end.

    Raises:
        RevisionNotFound: there is no such revision.
        PublishError: it is the newest one already, or cannot be published again.
    """
    ledger.head()
    with held(ledger.target, f"roll back to {to}", wait=wait):
        head = ledger.head()
        ledger.check_readable()
        tags = ledger.tags(head)
        if tag is not None:
            check_new_name(tag, {known.name for known in tags})
        with opened_store(ledger.target) as reader:
            left = find_revision(ledger, head, None, reader)
            restored = find_revision(ledger, head, to, reader)
            _check(restored, left)
            manifest = replace(
                head.manifest, revision=head.manifest.revision + 1, timestamp=ledger.now(head)
            )
            properties = {
                "revision": str(manifest.revision),
                "previous_revision": str(left.root_hash),
                "last_modified": str(manifest.timestamp),
                "TTL": str(manifest.ttl),
            }
            store = ContentStore(ledger.target, left.root_hash.algorithm)
            digest, size = _republish(reader, restored.root_hash, properties, store)
        manifest = replace(manifest, root_catalog=digest, catalog_size=size)
        trunk = Tag(TRUNK, digest, manifest.revision, manifest.timestamp, "current HEAD", size)
        new_tags = moved_trunk(tags, trunk, tag, description)
        ledger.advance(store, manifest, after=head, tags=new_tags)
    return RollbackResult(manifest.revision, digest, left, restored)


def _check(restored: KnownRevision, left: KnownRevision) -> None:
    if restored.root_hash == left.root_hash:
        raise PublishError(f"revision {restored.number} is the newest one already")
    if restored.schema < NEWEST_SCHEMA - SCHEMA_TOLERANCE:
        raise PublishError(
            f"revision {restored.number} has catalogs of schema {restored.schema}, which can be"
            " read, but not published again",
            hint="copy its tree with 'lazyfs cp' and publish that",
        )


def _republish(
    reader: TargetStore, root: Digest, properties: Mapping[str, str], store: ContentStore
) -> tuple[Digest, int]:
    """The root catalog with other properties, stored; digest and size."""
    path = reader.workspace / "root.catalog"
    with reader.open(ObjectRef(root, ObjectKind.CATALOG)) as handle, path.open("wb") as file:
        offset = 0
        while piece := handle.pread(_PIECE, offset):
            file.write(piece)
            offset += len(piece)
    _write_properties(path, properties)
    return store.put_path(path, ObjectKind.CATALOG)


def _write_properties(path: Path, properties: Mapping[str, str]) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            # The file is private until it is uploaded: no journal may be left beside it.
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA trusted_schema = OFF")
            for item in properties.items():
                database.execute("DELETE FROM properties WHERE key = ?", item[:1])
                database.execute("INSERT INTO properties (key, value) VALUES (?, ?)", item)
    except sqlite3.Error as exc:
        raise PublishError(
            f"cannot change the root catalog: {exc}", hint="is there room for temporary files?"
        ) from exc
