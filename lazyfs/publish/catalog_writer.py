"""`CatalogWriter`: one catalog, schema 2.5 revision 7. Source: upstream ``catalog_sql.cc``."""

from __future__ import annotations

import sqlite3
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.publish.content import StoredFile
from lazyfs.publish.source import SourceEntry
from lazyfs.repository import row
from lazyfs.repository.catalog import COUNTERS
from lazyfs.repository.pathhash import path_hash
from lazyfs.repository.xattr_blob import dump_xattrs

SCHEMA = "2.5"
SCHEMA_REVISION = "7"

_TABLES = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,
    hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER,
    flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB,
    CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
    CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),
    FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog (md5path_1, md5path_2));
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER,
    CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));
CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER,
    CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
CREATE TABLE statistics (counter TEXT, value INTEGER,
    CONSTRAINT pk_statistics PRIMARY KEY (counter));
"""

_INSERT = (
    "INSERT INTO catalog VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT),"
    " CAST(? AS TEXT), ?, ?, ?)"
)


class CatalogWriter:
    """One catalog that is being written to ``path``.

    Args:
        path: A file that does not exist yet.
        mountpoint: Where the catalog will be attached; ``b""`` for the root.
        algorithm: Of the digests it will hold.
        nanoseconds: Keep the fraction of modification times.
    """

    def __init__(
        self, path: Path, mountpoint: bytes, algorithm: Algorithm, *, nanoseconds: bool = True
    ) -> None:
        self.path = path
        self.mountpoint = mountpoint
        self._algorithm = algorithm
        self._nanoseconds = nanoseconds
        self._own: Counter[str] = Counter()
        self._below: Counter[str] = Counter()
        self._groups = 0
        self._database = sqlite3.connect(path, isolation_level=None)
        # The file is new and private until it is uploaded: no journal, no syncing.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_TABLES)
        self._database.execute("BEGIN")

    def new_group(self) -> int:
        """A hard-link group number that is not used yet."""
        self._groups += 1
        return self._groups

    def add_directory(
        self, entry: SourceEntry, path: bytes, links: int, *, mountpoint: bool = False
    ) -> None:
        """Add a directory; at the catalog's own mountpoint, its root entry.

        Args:
            entry: Its metadata.
            path: Where it is.
            links: 2 and one for each subdirectory.
            mountpoint: A nested catalog begins there.
        """
        flags = row.FLAG_DIRECTORY
        if mountpoint:
            flags |= row.FLAG_MOUNTPOINT
        elif path == self.mountpoint and path:
            flags |= row.FLAG_NESTED_ROOT
        self._own["dir"] += 1
        self._insert(entry, path, flags, links, None, entry.size)

    def add_file(
        self,
        entry: SourceEntry,
        path: bytes,
        stored: StoredFile,
        codec: Codec,
        *,
        group: int = 0,
        links: int = 1,
    ) -> None:
        """Add a regular file whose content is stored."""
        flags = row.FLAG_FILE | (self._algorithm.value - 1) << row.HASH_SHIFT
        flags |= codec.value << row.CODEC_SHIFT
        self._own["regular"] += 1
        self._own["file_size"] += stored.size
        if stored.chunks:
            flags |= row.FLAG_CHUNKED
            self._own["chunked"] += 1
            self._own["chunked_size"] += stored.size
            self._own["chunks"] += len(stored.chunks)
            self._database.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)",
                [(*path_hash(path), c.offset, c.size, c.digest.raw) for c in stored.chunks],
            )
        digest = stored.digest.raw if stored.digest is not None else None
        self._insert(entry, path, flags, group << 32 | links, digest, stored.size)

    def add_other(self, entry: SourceEntry, path: bytes) -> None:
        """Add a symlink or a special file."""
        flags, size = row.FLAG_FILE | row.FLAG_SPECIAL, 0
        if stat.S_ISLNK(entry.mode):
            flags, size = row.FLAG_FILE | row.FLAG_SYMLINK, len(entry.target)
            self._own["symlink"] += 1
        else:
            self._own["special"] += 1
            if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
                size = entry.rdev
        self._insert(entry, path, flags, 1, None, size)

    def add_nested(
        self, mountpoint: bytes, digest: Digest, size: int, counters: Mapping[str, int]
    ) -> None:
        """Register a nested catalog that is stored already.

        Args:
            mountpoint: Where it begins; `add_directory` adds the entry.
            digest: Its object.
            size: Its bytes, uncompressed.
            counters: What it counts, its own and all below it.
        """
        self._own["nested"] += 1
        self._below.update(counters)
        self._database.execute(
            "INSERT INTO nested_catalogs VALUES (CAST(? AS TEXT), ?, ?)",
            (mountpoint, str(digest), size),
        )

    def _insert(
        self,
        entry: SourceEntry,
        path: bytes,
        flags: int,
        hardlinks: int,
        digest: bytes | None,
        size: int,
    ) -> None:
        parent, _, name = path.rpartition(b"/")
        xattrs = dump_xattrs(entry.xattrs)
        if xattrs is not None:
            self._own["xattr"] += 1
        seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
        self._database.execute(
            _INSERT,
            (
                *path_hash(path),
                *(path_hash(parent) if path else (0, 0)),
                hardlinks,
                digest,
                size,
                entry.mode,
                seconds,
                nanoseconds if self._nanoseconds else None,
                flags,
                name,
                entry.target,
                entry.uid,
                entry.gid,
                xattrs,
            ),
        )

    def finish(self, properties: Mapping[str, str]) -> Counter[str]:
        """Write properties and counters and close the file.

        Returns:
            What the catalog counts, its own entries and all below, by counter name.
        """
        known = {"schema": SCHEMA, "schema_revision": SCHEMA_REVISION, **properties}
        if self.mountpoint:
            known["root_prefix"] = self.mountpoint.decode(errors="surrogateescape")
        self._database.executemany(
            "INSERT INTO properties VALUES (?, CAST(? AS TEXT))",
            [(key, value.encode(errors="surrogateescape")) for key, value in known.items()],
        )
        for prefix, counter in (("self_", self._own), ("subtree_", self._below)):
            self._database.executemany(
                "INSERT INTO statistics VALUES (?, ?)",
                [(prefix + name, counter[name]) for name in COUNTERS],
            )
        self._database.execute("COMMIT")
        self._database.close()
        return self._own + self._below

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
