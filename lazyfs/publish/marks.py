"""`Marks`: which objects are needed and which are not, on disk: there may be tens of millions."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.errors import PublishError

_CACHE_KIB = 32 << 10
"""Memory for pages of the file."""

_BATCH = 100_000
"""Marks that are gathered in memory; sorted, they touch each page of the file only once."""

_TABLES = """
CREATE TABLE needed (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE condemned (path TEXT, size INTEGER);
"""


class Marks:
    """Objects that are needed, and paths that are condemned; not safe to use from many threads.

    Args:
        path: A file that does not exist yet.

    Raises:
        PublishError: there is no room for it; this may also be raised by every method.
    """

    def __init__(self, path: Path) -> None:
        self._gathered: set[bytes] = set()
        with _readable_errors():
            self._database = sqlite3.connect(path, isolation_level=None)
            # The file is worth nothing once the process is gone: no journal, no syncing.
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._database.executescript(_TABLES)

    # --- needed ------------------------------------------------------------------------------

    def need(self, digest: Digest, kind: ObjectKind) -> None:
        """Mark an object as needed."""
        self._gathered.add(_key(digest, kind))
        if len(self._gathered) >= _BATCH:
            self._flush()

    def is_needed(self, digest: Digest, kind: ObjectKind) -> bool:
        """Whether the object is marked."""
        key = _key(digest, kind)
        if key in self._gathered:
            return True
        with _readable_errors():
            found = self._database.execute("SELECT 1 FROM needed WHERE key = ?", (key,))
            return found.fetchone() is not None

    def _flush(self) -> None:
        keys = sorted(self._gathered)
        with _readable_errors():
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR IGNORE INTO needed VALUES (?)", ((key,) for key in keys)
            )
            self._database.execute("COMMIT")
        self._gathered.clear()

    # --- condemned ---------------------------------------------------------------------------

    def condemn(self, path: str, size: int) -> None:
        """Note an object that shall go."""
        with _readable_errors():
            if not self._database.in_transaction:
                self._database.execute("BEGIN")
            self._database.execute("INSERT INTO condemned VALUES (?, ?)", (path, size))

    def any_condemned(self) -> bool:
        """Whether anything shall go."""
        with _readable_errors():
            return self._database.execute("SELECT 1 FROM condemned").fetchone() is not None

    def condemned(self, batch: int) -> Iterator[list[tuple[str, int]]]:
        """Paths and sizes of what shall go, at most ``batch`` at a time."""
        with _readable_errors():
            if self._database.in_transaction:
                self._database.execute("COMMIT")
            rows = self._database.execute("SELECT path, size FROM condemned")
        while True:
            with _readable_errors():
                found = rows.fetchmany(batch)
            if not found:
                return
            yield found

    # --- life cycle --------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file."""
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


def _key(digest: Digest, kind: ObjectKind) -> bytes:
    # The digest comes first: targets list objects in its order, and what is asked for one after
    # the other then lies on the same page.
    return b"%b%c%b" % (digest.raw, digest.algorithm.value, kind.value.encode())


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise PublishError(
            f"cannot remember which objects are needed: {exc}",
            hint="is there room for temporary files? nothing more was removed",
        ) from exc
