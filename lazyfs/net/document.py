"""`Document`: a receiver for a small document that no digest names."""

from __future__ import annotations

from lazyfs.cas.verify import MemorySink
from lazyfs.errors import FormatError


class Document(MemorySink):
    """Keeps what arrives in memory, up to a limit.

    Args:
        name: For errors.
        limit: Most bytes.
    """

    def __init__(self, name: str, limit: int) -> None:
        super().__init__()
        self._name = name
        self._limit = limit
        self._left = limit

    def restart(self) -> None:
        """Forget everything written."""
        super().restart()
        self._left = self._limit

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            FormatError: there are more than the limit.
        """
        self._left -= len(data)
        if self._left < 0:
            raise FormatError(f"longer than {self._limit} bytes", object=self._name)
        super().write(data)

    def finish(self) -> None:
        """Accept whatever came."""
