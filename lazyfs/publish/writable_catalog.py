"""`WritableCatalog`: one catalog that is being changed."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.errors import FormatError, PublishError
from lazyfs.publish.catalog_tables import (
    CATALOG_COLUMNS,
    GROUP_SHIFT,
    SCHEMA,
    SCHEMA_REVISION,
    count_links,
    count_rows,
    create_tables,
    delete_rows_below,
    is_loose,
    move_rows_below,
    read_counters,
    upgrade_tables,
    write_counters,
)
from lazyfs.publish.content import StoredFile
from lazyfs.publish.source import SourceEntry
from lazyfs.repository import row
from lazyfs.repository.catalog import Chunk, NestedCatalog
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import path_hash
from lazyfs.repository.xattr_blob import dump_xattrs, parse_xattrs

_READ = row.COLUMNS.format(
    mtimens="mtimens", owner="uid, gid", links="hardlinks", xattr="xattr IS NOT NULL"
)
_AT = "WHERE md5path_1 = ? AND md5path_2 = ?"
_INSERT = (
    f"INSERT INTO catalog ({CATALOG_COLUMNS}) VALUES"
    " (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)"
)


class WritableCatalog:
    """A catalog in a private file. Its counters are right once it is finished.

    Args:
        path: The file.
        mountpoint: Where the catalog is attached; ``b""`` for the root.
        nanoseconds: Keep the fraction of modification times.
    """

    def __init__(self, path: Path, mountpoint: bytes, *, nanoseconds: bool = True) -> None:
        self.path = path
        self.mountpoint = mountpoint
        self._nanoseconds = nanoseconds
        self._regroup = False
        is_new = not path.exists()
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.text_factory = bytes
        # The file is private until it is uploaded: no journal, no syncing.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA trusted_schema = OFF")
        if is_new:
            create_tables(self._database)
        else:
            upgrade_tables(self._database, f"catalog at {mountpoint!r}")
        self._groups = 0
        self.refresh_groups()
        self._database.execute("BEGIN")

    # --- reading -----------------------------------------------------------------------------

    def find(self, path: bytes) -> Node | None:
        """The entry at ``path`` if this catalog has it."""
        found = self._database.execute(f"SELECT {_READ} FROM catalog {_AT}", path_hash(path))
        values = found.fetchone()
        return None if values is None else row.node_from_row(values, path, self.mountpoint)

    def children(self, path: bytes) -> list[Node]:
        """The entries of a directory that this catalog lists."""
        rows = self._database.execute(
            f"SELECT {_READ} FROM catalog WHERE parent_1 = ? AND parent_2 = ?", path_hash(path)
        ).fetchall()
        return row.nodes_from_rows(rows, path, self.mountpoint)

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of the entry at ``path``."""
        found = self._database.execute(f"SELECT xattr FROM catalog {_AT}", path_hash(path))
        values = found.fetchone()
        return parse_xattrs(values[0]) if values and isinstance(values[0], bytes) else {}

    def chunks(self, path: bytes, algorithm: Algorithm) -> tuple[Chunk, ...]:
        """The chunks of the file at ``path``, by offset."""
        rows = self._database.execute(
            f"SELECT offset, size, hash FROM chunks {_AT} ORDER BY offset", path_hash(path)
        )
        return tuple(Chunk(offset, size, Digest(algorithm, raw)) for offset, size, raw in rows)

    def nested(self) -> list[NestedCatalog]:
        """The nested catalogs that are registered."""
        rows = self._database.execute("SELECT path, sha1, size FROM nested_catalogs")
        return [NestedCatalog(p, _digest(sha1, p), size or 0) for p, sha1, size in rows]

    def nested_at(self, mountpoint: bytes) -> NestedCatalog | None:
        """The nested catalog that is registered at just that path."""
        found = self._database.execute(
            "SELECT path, sha1, size FROM nested_catalogs WHERE path = CAST(? AS TEXT)",
            (mountpoint,),
        ).fetchone()
        if found is None:
            return None
        return NestedCatalog(mountpoint, _digest(found[1], mountpoint), found[2] or 0)

    def stored_counters(self) -> tuple[Counter[str], Counter[str]]:
        """The counters as they were when the catalog was last finished: its own, and below it."""
        return read_counters(self._database, "self_"), read_counters(self._database, "subtree_")

    def directories(self) -> Iterator[tuple[bytes, int]]:
        """Each directory that this catalog lists, with how many entries are directly in it."""
        pending = [self.mountpoint]
        while pending:
            path = pending.pop()
            children = self.children(path)
            yield path, len(children)
            pending += [c.path for c in children if c.is_dir and not c.mountpoint]

    # --- entries -----------------------------------------------------------------------------

    def add(
        self, path: bytes, entry: SourceEntry, stored: StoredFile | None, *, flags: int = 0
    ) -> None:
        """Add an entry where none is.

        Args:
            path: Where it will be.
            entry: Its metadata.
            stored: Its content, if it is a regular file.
            flags: More of them, for a directory where catalogs meet.
        """
        parent = path.rpartition(b"/")[0]
        seconds, fraction = divmod(entry.mtime_ns, row.NANOSECONDS)
        digest = stored.digest.raw if stored is not None and stored.digest is not None else None
        self._database.execute(
            _INSERT,
            (
                *path_hash(path),
                *(path_hash(parent) if path else (0, 0)),
                2 if entry.is_dir else 1,
                digest,
                _size(entry, stored),
                entry.mode,
                seconds,
                fraction if self._nanoseconds else None,
                _flags(entry, stored) | flags,
                path.rpartition(b"/")[2],
                entry.target,
                entry.uid,
                entry.gid,
                _xattr_blob(entry, path),
            ),
        )
        if stored is not None and stored.chunks:
            self._database.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)",
                [(*path_hash(path), c.offset, c.size, c.digest.raw) for c in stored.chunks],
            )

    def update(self, path: bytes, entry: SourceEntry) -> None:
        """Give an entry other metadata; type, content, links and flags stay."""
        seconds, fraction = divmod(entry.mtime_ns, row.NANOSECONDS)
        size = ", size = ?" if entry.is_dir else ""
        self._database.execute(
            "UPDATE catalog SET mode = ?, mtime = ?, mtimens = ?, uid = ?, gid = ?, xattr = ?"
            f"{size} {_AT}",
            (
                entry.mode,
                seconds,
                fraction if self._nanoseconds else None,
                entry.uid,
                entry.gid,
                _xattr_blob(entry, path),
                *((entry.size,) if entry.is_dir else ()),
                *path_hash(path),
            ),
        )

    def delete(self, path: bytes) -> None:
        """Remove the row of an entry, and its chunks."""
        self._database.execute(f"DELETE FROM chunks {_AT}", path_hash(path))
        self._database.execute(f"DELETE FROM catalog {_AT}", path_hash(path))

    def delete_below(self, path: bytes) -> None:
        """Remove all rows below a directory, its own stays."""
        delete_rows_below(self._database, path_hash(path))
        prefix = path + b"/"
        for nested in self.nested():
            if nested.mountpoint.startswith(prefix):
                self.drop_nested(nested.mountpoint)
        self._regroup = True

    def change_links(self, path: bytes, by: int) -> None:
        """Change how many subdirectories a directory is said to have."""
        self._database.execute(
            f"UPDATE catalog SET hardlinks = hardlinks + ? {_AT}", (by, *path_hash(path))
        )

    def set_flags(self, path: bytes, flags: int) -> None:
        """Say what meets at a directory: nothing, a nested catalog, its parent."""
        self._database.execute(
            f"UPDATE catalog SET flags = ? {_AT}", (row.FLAG_DIRECTORY | flags, *path_hash(path))
        )

    # --- hard links --------------------------------------------------------------------------

    def join_group(self, path: bytes, target: bytes) -> None:
        """Make two entries of one directory names of one file; link counts come at the end."""
        found = self.find(target)
        assert found is not None
        group = found.hardlink_group
        if not group:
            self._groups += 1
            group = self._groups
        for member in (path, target):
            self._database.execute(
                f"UPDATE catalog SET hardlinks = ? {_AT}",
                (group << GROUP_SHIFT | 2, *path_hash(member)),
            )
        self._regroup = True

    def leave_group(self) -> None:
        """A name of a file with several names has gone; link counts come at the end."""
        self._regroup = True

    def _count_links(self) -> None:
        if self._regroup:
            count_links(self._database)
            self._regroup = False

    # --- nested catalogs ---------------------------------------------------------------------

    def set_nested(self, mountpoint: bytes, digest: Digest, size: int) -> None:
        """Register a nested catalog, or what it has become."""
        self._database.execute(
            "INSERT OR REPLACE INTO nested_catalogs (path, sha1, size)"
            " VALUES (CAST(? AS TEXT), ?, ?)",
            (mountpoint, str(digest), size),
        )

    def drop_nested(self, mountpoint: bytes) -> None:
        """Forget a nested catalog."""
        self._database.execute(
            "DELETE FROM nested_catalogs WHERE path = CAST(? AS TEXT)", (mountpoint,)
        )

    def move_below(self, path: bytes, other: WritableCatalog) -> None:
        """Move all that lies below ``path`` to another catalog, nested catalogs included."""
        self._count_links()
        prefix = path + b"/"
        moved = [n for n in self.nested() if n.mountpoint.startswith(prefix)]
        shift = other.next_groups()
        with self._attached(other):
            move_rows_below(self._database, path_hash(path), shift)
        other.refresh_groups()
        for nested in moved:
            other.set_nested(nested.mountpoint, nested.digest, nested.size)
            self.drop_nested(nested.mountpoint)

    @contextlib.contextmanager
    def _attached(self, other: WritableCatalog) -> Iterator[None]:
        """Have another catalog's tables at hand; both are committed before and after."""
        other.commit()
        self.commit()
        self._database.execute("ATTACH ? AS other", (str(other.path),))
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.execute("COMMIT")
            self._database.execute("DETACH other")
            self.begin()
            other.begin()

    def next_groups(self) -> int:
        """The highest number of a hard-link group so far."""
        return self._groups

    def refresh_groups(self) -> None:
        """Look again for the highest number, after rows were moved here."""
        found = self._database.execute("SELECT max(hardlinks) FROM catalog").fetchone()
        self._groups = int(found[0] or 0) >> GROUP_SHIFT

    # --- life cycle --------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to collect changes."""
        self._database.execute("BEGIN")

    def commit(self) -> None:
        """Write all changes so far to the file."""
        self._database.execute("COMMIT")

    def count(self) -> Counter[str]:
        """What the catalog's own rows come to now."""
        return count_rows(self._database)

    def finish(self, properties: Mapping[str, str], below: Counter[str]) -> None:
        """Make the file what is uploaded, with properties, counters and link counts.

        Only `close` may follow.

        Args:
            properties: Replace those of the same names; others stay.
            below: What all nested catalogs below come to.
        """
        self._count_links()
        known = {"schema": SCHEMA, "schema_revision": SCHEMA_REVISION, **properties}
        if self.mountpoint:
            known["root_prefix"] = self.mountpoint.decode(errors="surrogateescape")
        self._database.executemany(
            "INSERT OR REPLACE INTO properties VALUES (?, CAST(? AS TEXT))",
            [(key, value.encode(errors="surrogateescape")) for key, value in known.items()],
        )
        write_counters(self._database, self.count(), below)
        self.commit()
        if is_loose(self._database):
            self._database.execute("VACUUM")

    def properties(self) -> dict[str, str]:
        """The properties as they were when the catalog was last finished."""
        rows = self._database.execute("SELECT key, value FROM properties")
        return {
            key.decode(): (value or b"").decode(errors="surrogateescape") for key, value in rows
        }

    def close(self) -> None:
        """Write all changes so far and close the file."""
        if self._database.in_transaction:
            self._count_links()
            self.commit()
        self._database.close()


def _flags(entry: SourceEntry, stored: StoredFile | None) -> int:
    if entry.is_dir:
        return row.FLAG_DIRECTORY
    if stat.S_ISLNK(entry.mode):
        return row.FLAG_FILE | row.FLAG_SYMLINK
    if stored is None:
        return row.FLAG_FILE | row.FLAG_SPECIAL
    flags = row.FLAG_FILE | (stored.algorithm.value - 1) << row.HASH_SHIFT
    flags |= stored.codec.value << row.CODEC_SHIFT
    if stored.chunks:
        flags |= row.FLAG_CHUNKED
    return flags | (row.FLAG_EXTERNAL if stored.external else 0)


def _size(entry: SourceEntry, stored: StoredFile | None) -> int:
    if stored is not None:
        return stored.size
    if entry.is_dir:
        return entry.size
    if stat.S_ISLNK(entry.mode):
        return len(entry.target)
    return entry.rdev if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode) else 0


def _xattr_blob(entry: SourceEntry, path: bytes) -> bytes | None:
    try:
        return dump_xattrs(entry.xattrs)
    except FormatError as exc:
        raise PublishError(exc.message, path=path) from exc


def _digest(sha1: bytes, mountpoint: bytes) -> Digest:
    try:
        return Digest.parse_content(sha1.decode(errors="replace"))
    except FormatError as exc:
        raise FormatError("a nested catalog has no hash", path=mountpoint) from exc
