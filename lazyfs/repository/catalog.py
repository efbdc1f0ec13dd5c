"""`Catalog`: one SQLite file with the metadata of one subtree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.store import ObjectHandle
from lazyfs.errors import FormatError
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import path_hash, printable
from lazyfs.repository.row import (
    COLUMNS,
    MAX_SIZE,
    content_digest,
    node_from_row,
    nodes_from_rows,
)
from lazyfs.repository.sqlite_file import Row, SqliteFile, integer, text
from lazyfs.repository.xattr_blob import parse_xattrs

SCHEMA_TOLERANCE = 0.0005
"""Schema versions are floating-point text; upstream compares them so."""

NEWEST_SCHEMA = 2.5
MAX_ENTRIES = 2_000_000
"""Of one directory; upstream warns at 500,000 entries of a whole catalog."""

FEW_ENTRIES = 500
"""Of a directory that is read in passing; it takes about a millisecond."""

MAX_CHUNKS = 1_000_000
"""Of one file; with chunks of 4 MiB it has 4 TiB."""

_PAGE = 4096
"""Rows that are read at a time where all rows are."""

_WHOLE_FILES = "SELECT rowid, hash, flags FROM catalog WHERE rowid > ? AND length(hash) > 0"
# The cross join keeps SQLite from beginning with the other table, and from sorting.
_CHUNKS = (
    "SELECT c.rowid AS number, c.hash, f.flags FROM chunks AS c CROSS JOIN catalog AS f"
    " ON f.md5path_1 = c.md5path_1 AND f.md5path_2 = c.md5path_2 WHERE c.rowid > ?"
)

COUNTERS = (
    "regular",
    "symlink",
    "special",
    "dir",
    "nested",
    "chunked",
    "chunks",
    "file_size",
    "chunked_size",
    "xattr",
    "external",
    "external_file_size",
)
"""Names of the statistics counters; each exists as ``self_NAME`` and ``subtree_NAME``."""


@dataclass(frozen=True, slots=True)
class NestedCatalog:
    """A row of ``nested_catalogs`` or ``bind_mountpoints``."""

    mountpoint: bytes
    digest: Digest
    size: int
    """Bytes, uncompressed; 0: not recorded."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a chunked file; offset and size in the uncompressed file."""

    offset: int
    size: int
    digest: Digest


class Catalog:
    """Metadata of one subtree. Safe to use from many threads.

    Args:
        handle: The catalog's content; closed with the catalog.
        digest: Its digest.
        mountpoint: Where it is attached, which differs from where it was published if it was
            attached by a bind mountpoint.

    Raises:
        FormatError: the content is no catalog that can be read.
    """

    def __init__(self, handle: ObjectHandle, digest: Digest, mountpoint: bytes) -> None:
        self.digest = digest
        self.mountpoint = mountpoint
        self.name = f"catalog {digest}C at {printable(mountpoint)}"
        self._file = SqliteFile(handle, self.name, ("catalog", "nested_catalogs", "properties"))
        try:
            self._read_schema()
        except BaseException:
            self._file.close()
            raise

    def _read_schema(self) -> None:
        properties = self._file.properties()
        self.properties = properties
        try:
            self.schema = float(properties.get("schema") or 1.0)
        except ValueError as exc:
            raise FormatError("the schema version is no number", object=self.name) from exc
        if not 0 < self.schema <= NEWEST_SCHEMA + SCHEMA_TOLERANCE:
            raise FormatError(f"schema {self.schema} is not known", object=self.name)
        self.root_prefix = properties.get("root_prefix", "").encode(errors="surrogateescape")
        # What a schema revision added is told by the columns that are there.
        columns = self._file.columns("catalog")
        has_owner = {"uid", "gid"} <= columns
        self._columns = COLUMNS.format(
            mtimens="mtimens" if "mtimens" in columns else "NULL",
            owner="uid, gid" if has_owner else f"{os.geteuid()}, {os.getegid()}",
            links="hardlinks" if "hardlinks" in columns else "1",
            xattr="xattr IS NOT NULL" if "xattr" in columns else "0",
        )
        self._has_xattrs = "xattr" in columns
        self._nested_size = "size" if "size" in self._file.columns("nested_catalogs") else "0"
        self._has_binds = "bind_mountpoints" in self._file.tables
        self._has_nested = any(
            self._file.row(f"SELECT 1 FROM {table}") for table, _ in self._nested_tables()
        )

    def close(self) -> None:
        """Close the database."""
        self._file.close()

    @property
    def memory(self) -> int:
        """Bytes of memory that it may take while it is open."""
        return self._file.memory

    # --- paths -----------------------------------------------------------------------------

    def _inner(self, path: bytes) -> bytes:
        """``path`` as the catalog was published with it."""
        return self.root_prefix + path[len(self.mountpoint) :]

    def _outer(self, path: bytes) -> bytes:
        """The inverse of `_inner`."""
        if not path.startswith(self.root_prefix + b"/"):
            raise FormatError(
                "a nested catalog lies outside its parent", object=self.name, path=path
            )
        return self.mountpoint + path[len(self.root_prefix) :]

    # --- entries ---------------------------------------------------------------------------

    def find(self, path: bytes) -> Node | None:
        """The entry at ``path``, hidden or not; None if this catalog has none.

        Raises:
            FormatError: the row cannot be.
        """
        row = self._file.row(
            f"SELECT {self._columns} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?",
            *path_hash(self._inner(path)),
        )
        try:
            return None if row is None else node_from_row(row, path, self.mountpoint)
        except FormatError as exc:
            exc.object = self.name
            raise

    def children(self, path: bytes) -> list[Node]:
        """The entries of the directory ``path``, in catalog order, hidden ones included.

        Raises:
            FormatError: a row cannot be.
        """
        rows = self._file.rows(
            f"SELECT {self._columns} FROM catalog WHERE parent_1 = ? AND parent_2 = ?"
            f" LIMIT {MAX_ENTRIES + 1}",
            *path_hash(self._inner(path)),
        )
        if len(rows) > MAX_ENTRIES:
            raise FormatError("too many entries in a directory", object=self.name, path=path)
        return self._nodes(rows, path)

    def children_now(self, path: bytes) -> list[Node] | None:
        """As `children`, if they are few and in memory; else None.

        Raises:
            FormatError: a row cannot be.
        """
        rows = self._file.rows_now(
            f"SELECT {self._columns} FROM catalog WHERE parent_1 = ? AND parent_2 = ?"
            f" LIMIT {FEW_ENTRIES + 1}",
            *path_hash(self._inner(path)),
        )
        if rows is None or len(rows) > FEW_ENTRIES:
            return None
        return self._nodes(rows, path)

    def _nodes(self, rows: list[Row], path: bytes) -> list[Node]:
        try:
            return nodes_from_rows(rows, path, self.mountpoint)
        except FormatError as exc:
            exc.object = self.name
            raise

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of the entry at ``path``."""
        if not self._has_xattrs:
            return {}
        row = self._file.row(
            "SELECT xattr FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?",
            *path_hash(self._inner(path)),
        )
        return parse_xattrs(row[0]) if row and isinstance(row[0], bytes) else {}

    def chunks(self, path: bytes, algorithm: Algorithm) -> list[Chunk]:
        """The chunks of the file at ``path``, by offset; nothing is checked but types.

        Raises:
            FormatError: a row cannot be, or there are too many.
        """
        if "chunks" not in self._file.tables:
            return []
        rows = self._file.rows(
            "SELECT offset, size, hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ?"
            f" ORDER BY offset ASC LIMIT {MAX_CHUNKS + 1}",
            *path_hash(self._inner(path)),
        )
        if len(rows) > MAX_CHUNKS:
            raise FormatError("too many chunks", object=self.name, path=path)
        return [self._chunk(row, algorithm, path) for row in rows]

    def _chunk(self, row: tuple[object, ...], algorithm: Algorithm, path: bytes) -> Chunk:
        offset, size, raw = row
        if not isinstance(raw, bytes) or len(raw) != algorithm.size:
            raise FormatError("a chunk's hash has a wrong length", object=self.name, path=path)
        return Chunk(integer(offset, self.name), integer(size, self.name), Digest(algorithm, raw))

    def content_objects(self) -> Iterator[tuple[Digest, ObjectKind]]:
        """All objects of file content that rows name, some perhaps more than once.

        Rows that no listing reaches and external files, whose bytes lie elsewhere, count too.

        Raises:
            FormatError: a row cannot be.
        """
        for row in self._pages(f"{_WHOLE_FILES} ORDER BY rowid LIMIT {_PAGE}"):
            yield content_digest(row[1], row[2], self.name), ObjectKind.FILE
        if "chunks" in self._file.tables:
            for row in self._pages(f"{_CHUNKS} ORDER BY number LIMIT {_PAGE}"):
                yield content_digest(row[1], row[2], self.name), ObjectKind.CHUNK

    def _pages(self, query: str) -> Iterator[tuple[object, ...]]:
        """All rows of a query by rising row number, some at a time."""
        last = -(1 << 63)
        while rows := self._file.rows(query, last):
            yield from rows
            last = integer(rows[-1][0], self.name)

    # --- nested catalogs -------------------------------------------------------------------

    def nested_at(self, mountpoint: bytes) -> NestedCatalog | None:
        """The nested catalog or bind mountpoint at just that path.

        Raises:
            FormatError: the row cannot be.
        """
        if not self._has_nested:
            return None
        inner = self._inner(mountpoint)
        for table, size in self._nested_tables():
            row = self._file.row(
                f"SELECT path, sha1, {size} FROM {table} WHERE path = CAST(? AS TEXT)", inner
            )
            if row is not None:
                return self._nested(row)
        return None

    def nested(self) -> list[NestedCatalog]:
        """All nested catalogs; bind mountpoints are not followed by walkers and not listed.

        Raises:
            FormatError: a row cannot be.
        """
        rows = self._file.rows(
            f"SELECT path, sha1, {self._nested_size} FROM nested_catalogs LIMIT {MAX_ENTRIES}"
        )
        return [self._nested(row) for row in rows]

    def bound(self) -> list[NestedCatalog]:
        """All bind mountpoints: root catalogs of other revisions.

        Raises:
            FormatError: a row cannot be.
        """
        if not self._has_binds:
            return []
        rows = self._file.rows(f"SELECT path, sha1, size FROM bind_mountpoints LIMIT {MAX_ENTRIES}")
        return [self._nested(row) for row in rows]

    def _nested_tables(self) -> list[tuple[str, str]]:
        tables = [("nested_catalogs", self._nested_size)]
        return [*tables, ("bind_mountpoints", "size")] if self._has_binds else tables

    def _nested(self, row: tuple[object, ...]) -> NestedCatalog:
        path, digest, size = row
        raw = path if isinstance(path, bytes) else b""
        try:
            found = Digest.parse_content(text(digest))
        except FormatError as exc:
            raise FormatError(
                "a nested catalog has no hash and cannot be loaded", object=self.name, path=raw
            ) from exc
        if found.is_null or not 0 <= integer(size, self.name) <= MAX_SIZE:
            raise FormatError(
                "a nested catalog cannot be loaded: null hash or size", object=self.name, path=raw
            )
        return NestedCatalog(self._outer(raw), found, integer(size, self.name))

    # --- facts -----------------------------------------------------------------------------

    def number(self, name: str, default: int = 0) -> int:
        """A numeric property.

        Raises:
            FormatError: it is no number.
        """
        value = self.properties.get(name, "")
        if not value:
            return default
        try:
            return int(value)
        except ValueError as exc:
            raise FormatError(f"property {name} is no number", object=self.name) from exc

    def counters(self) -> dict[str, int]:
        """All statistics counters by name, ``self_…`` and ``subtree_…``; missing ones are 0."""
        names = [prefix + name for prefix in ("self_", "subtree_") for name in COUNTERS]
        found = self.stored_counters()
        return {name: found.get(name, 0) for name in names}

    def stored_counters(self) -> dict[str, int]:
        """The statistics counters that the catalog has, by name."""
        if "statistics" not in self._file.tables:
            return {}
        rows = self._file.rows("SELECT counter, value FROM statistics LIMIT 1000")
        return {text(name): integer(value, self.name) for name, value in rows}

    def row_count(self) -> int:
        """How many entries are stored, reachable or not."""
        row = self._file.row("SELECT count(*) FROM catalog")
        return integer(row[0], self.name) if row else 0

    def max_rowid(self) -> int:
        """The largest row number, upstream's measure of inode ranges."""
        row = self._file.row("SELECT max(rowid) FROM catalog")
        return integer(row[0], self.name) if row else 0


def sum_counters(counters: dict[str, int]) -> dict[str, int]:
    """Counters of a catalog with all below it: self and subtree added, by plain name, sorted."""
    return {
        name: counters[f"self_{name}"] + counters[f"subtree_{name}"] for name in sorted(COUNTERS)
    }
