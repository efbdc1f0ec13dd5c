"""`Negatives`: the names that the kernel has been told do not exist."""

from __future__ import annotations

from collections.abc import Callable

KEPT_NAMES = 32768
"""Beyond, the kernel is told so without permission to remember it."""


class Negatives:
    """Remembers missing names until the kernel forgets them by itself.

    So the kernel can be told in time when a new revision has one of them.

    Args:
        clock: Seconds, monotonic.
        limit: Most names.
    """

    def __init__(self, clock: Callable[[], float], limit: int = KEPT_NAMES) -> None:
        self._clock = clock
        self._limit = limit
        self._until: dict[tuple[int, bytes], float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def note(self, parent: int, name: bytes, seconds: float) -> bool:
        """The kernel is about to be told that there is no ``name``; whether it may remember."""
        now = self._clock()
        if len(self._until) >= self._limit:
            self._until = {key: until for key, until in self._until.items() if until > now}
            if len(self._until) >= self._limit:
                return False
        self._until[parent, name] = now + seconds
        return True

    def take(self) -> list[tuple[int, bytes]]:
        """All names that the kernel may remember; they are then no longer remembered here."""
        names, self._until = list(self._until), {}
        return names
