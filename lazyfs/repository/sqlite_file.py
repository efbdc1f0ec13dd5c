"""Opening SQLite files that came from elsewhere: read-only, immutable, bounded, no surprises."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from lazyfs.cas.residency import is_resident
from lazyfs.cas.store import ObjectHandle
from lazyfs.errors import CacheError, FormatError

PAGE_CACHE_KIB = 256
"""Memory of one open file's page cache; the kernel caches the file anyway."""

MAX_VALUE_BYTES = 1 << 20
"""Longest text or blob that is taken from a row."""

RESIDENT_SECONDS = 1.0
"""How long a file that is in memory is taken to stay there."""

_MAX_OBJECTS = 1000
_MAX_PROPERTIES = 1000
_MAX_PROPERTY_BYTES = 1 << 16

_STEPS_PER_CALL = 100_000
_MAX_STEPS = 2_000_000_000
"""Virtual machine steps of one query; a listing of a million entries takes about 3 % of it."""

Row = tuple[Any, ...]
"""A row as SQLite gives it; the reader checks each value's type."""


class SqliteFile:
    """One foreign database. Safe to use from many threads.

    Args:
        handle: Its content; closed with this object.
        name: For errors, e.g. ``catalog HASH at PATH``.
        tables: Tables that must be there as tables; a view or trigger of any name is refused.

    Raises:
        FormatError: it is no SQLite database, or not of that shape.
        CacheError: SQLite cannot open the file.
    """

    def __init__(self, handle: ObjectHandle, name: str, tables: Iterable[str]) -> None:
        self.name = name
        self._handle = handle
        self._lock = threading.Lock()
        self._budget = 0
        self._is_in_memory = False
        self._at_hand = False
        self._at_hand_until = 0.0
        self.memory = PAGE_CACHE_KIB << 10
        """Bytes of memory that it may take while it is open."""
        self.tables: frozenset[str] = frozenset()
        """Names of all tables."""
        try:
            self._database = self._open()
        except BaseException:
            handle.close()
            raise
        try:
            self._prepare(frozenset(tables))
        except BaseException:
            self.close()
            raise

    def _open(self) -> sqlite3.Connection:
        path = self._handle.path
        # A damaged file is unlinked while others have it open; then the handle alone has it.
        if path is not None and path.exists():
            uri = f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"
            return self._connect(uri)
        content = self._handle.pread(self._handle.size, 0)
        if not content:
            raise FormatError("not a database: empty", object=self.name)
        database = self._connect(":memory:")
        self.memory += len(content)
        try:
            database.deserialize(content)
        except sqlite3.Error as exc:
            database.close()
            raise FormatError(f"not a database: {exc}", object=self.name) from exc
        self._handle.close()  # one copy in memory will do
        self._is_in_memory = True
        return database

    def _connect(self, uri: str) -> sqlite3.Connection:
        try:
            return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as exc:
            raise CacheError(f"cannot open the database: {exc}", object=self.name) from exc

    def _prepare(self, tables: frozenset[str]) -> None:
        database = self._database
        database.text_factory = bytes
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        database.set_progress_handler(self._spend, _STEPS_PER_CALL)
        for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
            self.rows(f"PRAGMA {pragma}")
        self.rows(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")
        found = self.rows(f"SELECT type, name, rootpage FROM sqlite_master LIMIT {_MAX_OBJECTS}")
        # A view, a trigger and a virtual table have no page of their own.
        if any(kind not in (b"table", b"index") or not page for kind, _, page in found):
            raise FormatError(
                "the database has views, triggers or virtual tables", object=self.name
            )
        # A generated column computes within one step, where no budget sees it.
        if self.row(
            "SELECT 1 FROM sqlite_master AS m JOIN pragma_table_xinfo(m.name) AS c"
            " WHERE m.type = 'table' AND c.hidden"
        ):
            raise FormatError("the database has generated columns", object=self.name)
        self.tables = frozenset(text(name) for kind, name, _ in found if kind == b"table")
        missing = tables - self.tables
        if missing:
            raise FormatError(f"no table {', '.join(sorted(missing))}", object=self.name)

    def _spend(self) -> int:
        self._budget -= _STEPS_PER_CALL
        return int(self._budget < 0)

    def rows(self, query: str, *arguments: object) -> list[Row]:
        """All rows of a query; text comes as bytes.

        Raises:
            FormatError: the file is damaged, or the query does not end within its budget.
        """
        with self._lock:
            return self._query(query, arguments)

    def _query(self, query: str, arguments: tuple[object, ...]) -> list[Row]:
        self._budget = _MAX_STEPS
        try:
            return self._database.execute(query, arguments).fetchall()
        except (sqlite3.Error, OverflowError, ValueError) as exc:
            raise FormatError(f"damaged database: {exc}", object=self.name) from exc

    def rows_now(self, query: str, *arguments: object) -> list[Row] | None:
        """As `rows`, if neither a disk nor another thread need be waited for; else None.

        Raises:
            FormatError: as `rows`.
        """
        if not self._is_at_hand() or not self._lock.acquire(blocking=False):
            return None
        try:
            return self._query(query, arguments)
        finally:
            self._lock.release()

    def _is_at_hand(self) -> bool:
        now = time.monotonic()
        if now >= self._at_hand_until:
            handle = self._handle
            self._at_hand = self._is_in_memory or is_resident(handle.fileno(), handle.size)
            self._at_hand_until = now + RESIDENT_SECONDS
        return self._at_hand

    def row(self, query: str, *arguments: object) -> Row | None:
        """The first row of a query, or None."""
        rows = self.rows(f"{query} LIMIT 1", *arguments)
        return rows[0] if rows else None

    def columns(self, table: str) -> frozenset[str]:
        """Names of a table's columns."""
        return frozenset(text(row[1]) for row in self.rows(f"PRAGMA table_info({table})"))

    def properties(self) -> dict[str, str]:
        """The key-value pairs of the table ``properties``."""
        rows = self.rows(
            f"SELECT key, value FROM properties WHERE length(value) <= {_MAX_PROPERTY_BYTES}"
            f" LIMIT {_MAX_PROPERTIES}"
        )
        return {text(key): text(value) for key, value in rows}

    def close(self) -> None:
        """Close the database and its handle."""
        with self._lock:
            self._database.close()
            self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_database"):
            self.close()


def text(value: object) -> str:
    """A column's value as text, whatever type the row has there."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


def integer(value: object, name: str) -> int:
    """A column's value as a number; NULL counts as 0.

    Raises:
        FormatError: it is something else.
    """
    if type(value) is int:
        return value
    if value is None:
        return 0
    raise FormatError("a number is expected", object=name)
