"""The tables of a catalog, schema 2.5 revision 7. Source: upstream ``catalog_sql.cc``."""

from __future__ import annotations

import sqlite3
from collections import Counter

from lazyfs.errors import FormatError
from lazyfs.repository.catalog import COUNTERS

SCHEMA = "2.5"
SCHEMA_REVISION = "7"

_OLDEST_SCHEMA = 2.4
"""Upstream's publisher upgrades from there; older catalogs lack what cannot be guessed."""

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
CREATE TABLE statistics (counter TEXT, value INTEGER,
    CONSTRAINT pk_statistics PRIMARY KEY (counter));
"""

_BIND_MOUNTPOINTS = """
CREATE TABLE IF NOT EXISTS bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER,
    CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
"""

_LATER_COLUMNS = (
    ("nested_catalogs", "size", "INTEGER"),
    ("catalog", "xattr", "BLOB"),
    ("catalog", "mtimens", "INTEGER"),
)

CATALOG_COLUMNS = (
    "md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens,"
    " flags, name, symlink, uid, gid, xattr"
)
"""By name: in an upgraded catalog they stand in another order."""

GROUP_SHIFT = 32
"""The column ``hardlinks`` has the number of a group above these bits, and link counts below."""

_BELOW = """
WITH RECURSIVE below (first, second) AS (
    SELECT md5path_1, md5path_2 FROM catalog WHERE parent_1 = ? AND parent_2 = ?
    UNION SELECT md5path_1, md5path_2 FROM catalog, below
    WHERE parent_1 = first AND parent_2 = second)
"""
"""All rows below a directory, without its own."""

# What each counter counts, as conditions on rows of ``catalog``: the type decides, as for readers.
_TYPE = "(mode & 61440)"
_REGULAR, _LINK, _DIRECTORY = f"{_TYPE} = 32768", f"{_TYPE} = 40960", f"{_TYPE} = 16384"
_COUNTED = {
    "regular": f"total({_REGULAR})",
    "symlink": f"total({_LINK})",
    "special": f"total({_TYPE} NOT IN (32768, 40960, 16384))",
    "dir": f"total({_DIRECTORY})",
    "chunked": f"total({_REGULAR} AND flags & 64)",
    "file_size": f"total(size * ({_REGULAR}))",
    "chunked_size": f"total(size * ({_REGULAR} AND (flags & 64) != 0))",
    "xattr": "total(xattr IS NOT NULL)",
    "external": f"total({_REGULAR} AND flags & 128)",
    "external_file_size": f"total(size * ({_REGULAR} AND (flags & 128) != 0))",
}


def create_tables(database: sqlite3.Connection) -> None:
    """Lay out an empty catalog."""
    database.executescript(_TABLES + _BIND_MOUNTPOINTS)
    database.executemany(
        "INSERT INTO properties VALUES (?, ?)",
        [("schema", SCHEMA), ("schema_revision", SCHEMA_REVISION)],
    )


def upgrade_tables(database: sqlite3.Connection, name: str) -> None:
    """Bring an older catalog to the present revision of its schema.

    Args:
        database: The catalog.
        name: For errors.

    Raises:
        FormatError: it is too old for that.
    """
    row = database.execute("SELECT value FROM properties WHERE key = 'schema'").fetchone()
    try:
        schema = float(row[0]) if row else 1.0
    except ValueError as exc:
        raise FormatError("the schema version is no number", object=name) from exc
    if schema < _OLDEST_SCHEMA - 0.0005:
        raise FormatError(
            f"schema {schema} can be read, but not changed",
            object=name,
            hint="publish the tree into a new repository",
        )
    for table, column, kind in _LATER_COLUMNS:
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        if column.encode() not in columns:
            database.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    database.executescript(_BIND_MOUNTPOINTS)


def read_counters(database: sqlite3.Connection, prefix: str) -> Counter[str]:
    """The stored counters whose names begin with ``self_`` or ``subtree_``, without that."""
    found: Counter[str] = Counter()
    for name, value in database.execute("SELECT counter, value FROM statistics"):
        plain = name.decode().removeprefix(prefix)
        if name.decode().startswith(prefix) and plain in COUNTERS and type(value) is int:
            found[plain] = value
    return found


def write_counters(database: sqlite3.Connection, own: Counter[str], below: Counter[str]) -> None:
    """Replace all stored counters."""
    database.execute("DELETE FROM statistics")
    for prefix, counter in (("self_", own), ("subtree_", below)):
        database.executemany(
            "INSERT INTO statistics VALUES (?, ?)",
            [(prefix + name, counter[name]) for name in COUNTERS],
        )


def count_rows(database: sqlite3.Connection) -> Counter[str]:
    """What a catalog's own rows come to: its ``self_`` counters, counted anew."""
    names = list(_COUNTED)
    row = database.execute(f"SELECT {', '.join(_COUNTED.values())} FROM catalog").fetchone()
    counted = Counter({name: int(value) for name, value in zip(names, row, strict=True)})
    for name, table in (("chunks", "chunks"), ("nested", "nested_catalogs")):
        counted[name] = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return counted


def count_links(database: sqlite3.Connection) -> None:
    """Give all members of each hard-link group its size; what is alone is no group."""
    database.execute(
        "CREATE TEMP TABLE sizes AS SELECT hardlinks >> 32 AS number, count(*) AS members"
        f" FROM catalog WHERE hardlinks >> 32 > 0 AND NOT {_DIRECTORY} GROUP BY number"
    )
    database.execute(
        "UPDATE catalog SET hardlinks = CASE members WHEN 1 THEN 1"
        " ELSE (number << 32) | members END FROM sizes"
        f" WHERE hardlinks >> 32 = number AND NOT {_DIRECTORY}"
    )
    database.execute("DROP TABLE sizes")


def delete_rows_below(database: sqlite3.Connection, directory: tuple[int, int]) -> None:
    """Delete all rows below a directory; its own stays.

    Args:
        database: The catalog.
        directory: The hash of its path.
    """
    for table in ("chunks", "catalog"):
        database.execute(
            f"{_BELOW} DELETE FROM {table} WHERE (md5path_1, md5path_2) IN below", directory
        )


def move_rows_below(database: sqlite3.Connection, directory: tuple[int, int], shift: int) -> None:
    """Move all rows below a directory to the catalog that is attached as ``other``.

    Args:
        database: The catalog.
        directory: The hash of the directory's path.
        shift: Added to the numbers of hard-link groups.
    """
    database.execute("CREATE TEMP TABLE moved (first, second, UNIQUE(first, second))")
    database.execute(f"{_BELOW} INSERT INTO moved SELECT * FROM below", directory)
    chosen = "WHERE (md5path_1, md5path_2) IN moved"
    shifted = f"hardlinks + (CASE WHEN hardlinks >> 32 > 0 THEN {shift} << 32 ELSE 0 END)"
    database.execute(
        f"INSERT INTO other.catalog ({CATALOG_COLUMNS})"
        f" SELECT {CATALOG_COLUMNS.replace('hardlinks', shifted)} FROM main.catalog {chosen}"
    )
    database.execute(f"INSERT INTO other.chunks SELECT * FROM main.chunks {chosen}")
    for table in ("chunks", "catalog"):
        database.execute(f"DELETE FROM main.{table} {chosen}")
    database.execute("DROP TABLE moved")


def is_loose(database: sqlite3.Connection) -> bool:
    """Whether much of a catalog is free pages or unused row numbers.

    For upstream's clients the highest row number is the length of a range of inodes.
    """
    free, pages = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("freelist_count", "page_count")
    )
    highest, rows = database.execute("SELECT max(rowid), count(*) FROM catalog").fetchone()
    return free * 5 > pages or (highest or 0) - rows > (highest or 0) // 4
