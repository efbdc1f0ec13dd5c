"""Catalogs row by row, for tests that need what no publisher writes."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.handle import FileHandle
from lazyfs.repository.catalog import COUNTERS, Catalog
from lazyfs.repository.catalog_tree import CatalogTree
from lazyfs.repository.pathhash import path_hash
from lazyfs.repository.revision import Revision, RevisionInfo
from lazyfs.repository.xattr_blob import dump_xattrs
from support.memory_store import MemoryStore

SHA1_OF_NOTHING = Algorithm.SHA1.digest(b"")

_TABLES = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,
    hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER,
    flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB);
CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB);
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER);
CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER);
CREATE TABLE statistics (counter TEXT, value INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one entry that say something; the rest follows from the path."""

    mode: object = stat.S_IFREG | 0o644
    flags: object = 4
    size: object = 0
    digest: object = None
    links: object = 1
    mtime: object = 0
    mtimens: object = None
    symlink: object = b""
    uid: object = 0
    gid: object = 0
    xattr: object = None
    name: bytes | None = None
    """None: the last component of the path."""


FOLDER = Row(stat.S_IFDIR | 0o755, flags=1, size=4096, links=2)


@dataclass(slots=True)
class CatalogBuilder:
    """Rows of a catalog that is yet to be written; nothing is checked."""

    root: bytes = b""
    """Mountpoint, and root prefix."""
    properties: dict[str, str] = field(
        default_factory=lambda: {"schema": "2.5", "schema_revision": "7", "revision": "1"}
    )
    rows: list[tuple[bytes, Row]] = field(default_factory=list)
    chunks: list[tuple[bytes, object, object, object]] = field(default_factory=list)
    nested: list[tuple[bytes, str, object]] = field(default_factory=list)
    binds: list[tuple[bytes, str, object]] = field(default_factory=list)
    counters: dict[str, object] = field(default_factory=dict)
    tables: str = _TABLES
    script: str = ""
    """SQL run at the end."""

    def __post_init__(self) -> None:
        if self.root:
            self.properties["root_prefix"] = self.root.decode()
        flags = 33 if self.root else 1
        self.add(self.root, Row(stat.S_IFDIR | 0o755, flags=flags, size=4096, links=2))

    def add(self, path: bytes, row: Row) -> CatalogBuilder:
        self.rows.append((path, row))
        return self

    def folder(self, path: bytes) -> CatalogBuilder:
        return self.add(path, FOLDER)

    def file(
        self, path: bytes, digest: Digest | None = SHA1_OF_NOTHING, size: int = 0, flags: int = 4
    ) -> CatalogBuilder:
        return self.add(path, Row(flags=flags, size=size, digest=digest and digest.raw))

    def link(self, path: bytes, target: bytes) -> CatalogBuilder:
        mode = stat.S_IFLNK | 0o777
        return self.add(path, Row(mode, flags=12, size=len(target), symlink=target))

    def mountpoint(self, path: bytes, digest: str, size: object = 0) -> CatalogBuilder:
        """A folder with a nested catalog."""
        self.nested.append((path, digest, size))
        return self.add(path, Row(stat.S_IFDIR | 0o755, flags=3, size=4096, links=2))

    def chunked(
        self, path: bytes, size: int, chunks: list[tuple[object, object, object]], flags: int = 68
    ) -> CatalogBuilder:
        self.chunks += [(path, *chunk) for chunk in chunks]
        return self.add(path, Row(flags=flags, size=size))

    def xattrs(self, path: bytes, attributes: Mapping[bytes, bytes]) -> CatalogBuilder:
        return self.add(path, Row(xattr=dump_xattrs(attributes), digest=SHA1_OF_NOTHING.raw))

    def build(self) -> bytes:
        """The catalog's bytes."""
        database = sqlite3.connect(":memory:")
        try:
            database.executescript(self.tables)
            self._fill(database)
            database.executescript(self.script)
            database.commit()
            return database.serialize()
        finally:
            database.close()

    def _fill(self, database: sqlite3.Connection) -> None:
        for path, row in self.rows:
            _insert(database, path, row)
        for path, *chunk in self.chunks:
            database.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", (*path_hash(path), *chunk)
            )
        for table, entries in (("nested_catalogs", self.nested), ("bind_mountpoints", self.binds)):
            for entry in entries:
                database.execute(f"INSERT INTO {table} VALUES (CAST(? AS TEXT), ?, ?)", entry)
        names = [prefix + name for prefix in ("self_", "subtree_") for name in COUNTERS]
        for name in names:
            value = self.counters.get(name, 0)
            database.execute("INSERT INTO statistics VALUES (?, ?)", (name, value))
        database.executemany("INSERT INTO properties VALUES (?, ?)", self.properties.items())

    def put(self, store: MemoryStore) -> Digest:
        """Store the catalog; its digest."""
        return store.put(self.build(), ObjectKind.CATALOG)

    def catalog(self) -> Catalog:
        """The catalog, open."""
        content = self.build()
        digest = Algorithm.SHA1.digest(content)
        return Catalog(FileHandle.from_bytes(content), digest, self.root)

    def tree(self, store: MemoryStore, *, limit: int = 100, memory: int = 100 << 20) -> CatalogTree:
        """A tree with this catalog as its root."""
        return CatalogTree(store, "test.example.org", self.put(store), limit=limit, memory=memory)

    def revision(self, store: MemoryStore, variables: Mapping[str, str] | None = None) -> Revision:
        """A revision with this catalog as its root."""
        tree = self.tree(store)
        info = RevisionInfo("test.example.org", tree.root.digest)
        return Revision(info, tree, store, variables or {})


def _insert(database: sqlite3.Connection, path: bytes, row: Row) -> None:
    parent, _, name = path.rpartition(b"/")
    database.execute(
        "INSERT INTO catalog VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT),"
        " CAST(? AS TEXT), ?, ?, ?)",
        (
            *path_hash(path),
            *(path_hash(parent) if path else (0, 0)),
            *(row.links, row.digest, row.size, row.mode, row.mtime, row.mtimens, row.flags),
            name if row.name is None else row.name,
            *(row.symlink, row.uid, row.gid, row.xattr),
        ),
    )
