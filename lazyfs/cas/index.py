"""`CacheIndex`: the SQLite database that knows what a cache directory holds.

One row an object, one row a reservation; a single row keeps the sum, moved by triggers in the same
transaction, so that the quota holds among all processes that share the directory.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lazyfs.errors import CacheError, CacheFull

BUSY_SECONDS = 30.0
"""How long one process waits for another's transaction; these take well under a millisecond."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, size INTEGER NOT NULL,
    checksum INTEGER NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_used ON objects (pinned, used);
CREATE TABLE IF NOT EXISTS reservations (name TEXT PRIMARY KEY, size INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('used', 0), ('reserved', 0), ('evictions', 0), ('healed', 0);
CREATE TRIGGER IF NOT EXISTS objects_in AFTER INSERT ON objects BEGIN
    UPDATE meta SET value = value + NEW.size WHERE name = 'used'; END;
CREATE TRIGGER IF NOT EXISTS objects_out AFTER DELETE ON objects BEGIN
    UPDATE meta SET value = value - OLD.size WHERE name = 'used'; END;
CREATE TRIGGER IF NOT EXISTS reserved_in AFTER INSERT ON reservations BEGIN
    UPDATE meta SET value = value + NEW.size WHERE name = 'reserved'; END;
CREATE TRIGGER IF NOT EXISTS reserved_change AFTER UPDATE ON reservations BEGIN
    UPDATE meta SET value = value + NEW.size - OLD.size WHERE name = 'reserved'; END;
CREATE TRIGGER IF NOT EXISTS reserved_out AFTER DELETE ON reservations BEGIN
    UPDATE meta SET value = value - OLD.size WHERE name = 'reserved'; END;
"""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One cached object, as the index knows it."""

    key: str
    size: int
    checksum: int
    """xxh3-64 of the content, as a signed 64-bit number."""
    kind: str
    """Letter of the object kind, as `ObjectKind` has it."""
    label: str
    pinned: bool
    last_used: int
    """Unix time in nanoseconds."""


_COLUMNS = "key, size, checksum, kind, label, pinned, used"


class CacheIndex:
    """The index of one cache directory. Safe to use from many threads and processes.

    Raises:
        sqlite3.DatabaseError: from the constructor, if the file is not an intact database.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self._database.execute(f"SELECT {_COLUMNS} FROM objects LIMIT 1").fetchall()
            self._database.execute("SELECT name, size FROM reservations").fetchall()
        except sqlite3.Error:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """While it lasts no other thread or process changes the index; all changes or none.

        A file gets or loses its name in ``objects`` only in here, together with its row.

        Raises:
            CacheFull: the disk has no room for the change.
            CacheError: the index failed.
        """
        with self._lock:
            try:
                if self._database.in_transaction:
                    yield
                    return
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as exc:
                raise _index_error(exc) from exc

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self.exclusive():
            yield self._database

    def _rows(self, query: str, *arguments: object) -> list[tuple[object, ...]]:
        with self._lock:
            try:
                return self._database.execute(query, arguments).fetchall()
            except sqlite3.Error as exc:
                raise _index_error(exc) from exc

    def is_sound(self) -> bool:
        """Whether SQLite finds nothing wrong in the whole database."""
        try:
            return self._rows("PRAGMA quick_check") == [("ok",)]
        except CacheError:
            return False

    def find(self, key: str) -> CacheEntry | None:
        """The entry of ``key``."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM objects WHERE key = ?", key)
        return _entry(rows[0]) if rows else None

    def entries(self) -> list[CacheEntry]:
        """All entries, most recently used first."""
        return [
            _entry(row) for row in self._rows(f"SELECT {_COLUMNS} FROM objects ORDER BY used DESC")
        ]

    def victims(self) -> Iterator[CacheEntry]:
        """Entries that may go, least recently used first; pages, so others can work meanwhile."""
        last = (-(1 << 62), "")
        while rows := self._rows(
            f"SELECT {_COLUMNS} FROM objects WHERE pinned = 0 AND (used, key) > (?, ?)"
            " ORDER BY used, key LIMIT 256",
            *last,
        ):
            for row in rows:
                entry = _entry(row)
                last = (entry.last_used, entry.key)
                yield entry

    def insert(self, entry: CacheEntry, *, reservation: str | None = None) -> None:
        """Add or replace an entry and drop the reservation it was written under, at once."""
        with self._transaction() as database:
            pinned = database.execute(
                "SELECT pinned FROM objects WHERE key = ?", (entry.key,)
            ).fetchone()
            database.execute("DELETE FROM objects WHERE key = ?", (entry.key,))
            database.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.key,
                    entry.size,
                    entry.checksum,
                    entry.kind,
                    entry.label,
                    int(entry.pinned or bool(pinned and pinned[0])),
                    entry.last_used,
                ),
            )
            if reservation is not None:
                database.execute("DELETE FROM reservations WHERE name = ?", (reservation,))

    def remove(self, key: str, *, counter: str | None = None) -> None:
        """Drop the entry of ``key``, counting it under ``evictions`` or ``healed``."""
        with self._transaction() as database:
            found = database.execute("DELETE FROM objects WHERE key = ?", (key,)).rowcount
            if found and counter:
                database.execute("UPDATE meta SET value = value + 1 WHERE name = ?", (counter,))

    def heal(self, key: str) -> None:
        """Note that the file of ``key`` was damaged and is gone; only a pin is remembered."""
        with self._transaction() as database:
            found = database.execute(
                "DELETE FROM objects WHERE key = ? AND pinned = 0", (key,)
            ).rowcount
            if found or self.find(key) is not None:
                database.execute("UPDATE meta SET value = value + 1 WHERE name = 'healed'")

    def reserve(self, name: str, size: int, limit: int | None) -> bool:
        """Set the reservation ``name`` to ``size`` bytes; False if that would pass ``limit``."""
        with self._transaction() as database:
            have = database.execute(
                "SELECT size FROM reservations WHERE name = ?", (name,)
            ).fetchone()
            total = sum(
                value
                for (value,) in database.execute(
                    "SELECT value FROM meta WHERE name IN ('used', 'reserved')"
                )
            )
            if limit is not None and total + size - (have[0] if have else 0) > limit:
                return False
            database.execute(
                "INSERT INTO reservations VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET size = excluded.size",
                (name, size),
            )
        return True

    def release(self, names: Iterable[str]) -> None:
        """Drop reservations."""
        with self._transaction() as database:
            database.executemany(
                "DELETE FROM reservations WHERE name = ?", [(name,) for name in names]
            )

    def reserved(self, name: str) -> int:
        """Bytes reserved under ``name``."""
        rows = self._rows("SELECT size FROM reservations WHERE name = ?", name)
        return int(str(rows[0][0])) if rows else 0

    def reservations(self) -> list[str]:
        """Names of all reservations."""
        return [str(row[0]) for row in self._rows("SELECT name FROM reservations")]

    def touch(self, used: Mapping[str, int]) -> None:
        """Set when entries were last used, in Unix nanoseconds."""
        with self._transaction() as database:
            database.executemany(
                "UPDATE objects SET used = max(used, ?) WHERE key = ?",
                [(when, key) for key, when in used.items()],
            )

    def pin(self, key: str, *, pinned: bool) -> bool:
        """Set or clear the pin of an entry; False if there is no such entry."""
        with self._transaction() as database:
            return bool(
                database.execute(
                    "UPDATE objects SET pinned = ? WHERE key = ?", (int(pinned), key)
                ).rowcount
            )

    def numbers(self) -> dict[str, int]:
        """Counters and sums by name, plus ``objects`` and ``pinned``."""
        values = {
            str(name): int(str(value))
            for name, value in self._rows("SELECT name, value FROM meta WHERE value IS NOT NULL")
        }
        ((count, pinned),) = self._rows(
            "SELECT count(*), coalesce(sum(size * pinned), 0) FROM objects"
        )
        return values | {"objects": int(str(count)), "pinned": int(str(pinned))}

    def gauge(self) -> int:
        """Bytes used and reserved."""
        ((total,),) = self._rows("SELECT sum(value) FROM meta WHERE name IN ('used', 'reserved')")
        return int(str(total))

    def stored_limit(self) -> int | None:
        """The quota that was set by hand, in bytes; -1 for none, None if never set."""
        rows = self._rows("SELECT value FROM meta WHERE name = 'limit'")
        return int(str(rows[0][0])) if rows else None

    def store_limit(self, limit: int) -> None:
        """Remember a quota set by hand."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES ('limit', ?)", (limit,))

    def sums_agree(self) -> bool:
        """Whether the sums are those of the rows."""
        return not self._rows(
            "SELECT name FROM meta WHERE"
            " name = 'used' AND value IS NOT (SELECT coalesce(sum(size), 0) FROM objects) OR"
            " name = 'reserved' AND value IS NOT (SELECT coalesce(sum(size), 0) FROM reservations)"
        )

    def recount(self) -> None:
        """Make the sums agree with the rows."""
        with self._transaction() as database:
            for name, table in (("used", "objects"), ("reserved", "reservations")):
                database.execute(
                    f"UPDATE meta SET value = (SELECT coalesce(sum(size), 0) FROM {table})"
                    " WHERE name = ?",
                    (name,),
                )


def _index_error(exc: sqlite3.Error) -> CacheError:
    if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return CacheFull("no space left for the cache index", hint="free space on the disk")
    return CacheError(f"the cache index failed: {exc}", hint="run 'lazyfs cache fsck --repair'")


def _entry(row: tuple[object, ...]) -> CacheEntry:
    key, size, checksum, kind, label, pinned, used = row
    return CacheEntry(
        str(key),
        int(str(size)),
        int(str(checksum)),
        str(kind),
        str(label),
        bool(pinned),
        int(str(used)),
    )
