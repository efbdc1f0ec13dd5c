"""`StateFile`: a small document that outlives a process, replaced as a whole."""

from __future__ import annotations

from pathlib import Path

from lazyfs.cas.layout import replace_file
from lazyfs.cas.store import SMALL_LIMIT
from lazyfs.errors import CacheError

STATE_LIMIT = 4 * SMALL_LIMIT
"""Most bytes of one: the last manifest, whitelist and certificate of a repository together."""


class StateFile:
    """One document below the cache's ``state`` folder.

    Args:
        path: Where it lies.
        writable: False makes `write` do nothing: a read-only cache remembers nothing new.
    """

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        self._path = path
        self._writable = writable

    def read(self) -> bytes | None:
        """The document, or None if there is none."""
        try:
            with self._path.open("rb") as file:
                content = file.read(STATE_LIMIT + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise CacheError(f"cannot read: {exc.strerror}", path=str(self._path)) from exc
        return content if len(content) <= STATE_LIMIT else None

    def write(self, content: bytes) -> None:
        """Replace the document.

        Raises:
            CacheError: the disk refuses; the old document is still there.
        """
        if not self._writable:
            return
        try:
            replace_file(self._path, content)
        except OSError as exc:
            raise CacheError(f"cannot write: {exc.strerror}", path=str(self._path)) from exc
