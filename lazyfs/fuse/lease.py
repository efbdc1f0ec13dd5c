"""`Lease`: a revision that stays open while somebody needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self

from lazyfs.repository.node import Node
from lazyfs.repository.view import RepositoryView


class LiveRevision(RepositoryView, Protocol):
    """What a mount needs of a revision, beyond reading its tree."""

    @property
    def offline(self) -> Self:
        """The same revision, raising `NotCached` where the network would be asked."""

    @property
    def ttl(self) -> int:
        """Seconds after which a newer revision should be looked for."""

    def children(self, path: bytes) -> Sequence[Node]:
        """As `listdir`, hidden entries included."""

    def children_now(self, directory: Node) -> Sequence[Node] | None:
        """As `children`, if nothing need be waited for; None otherwise."""

    def close(self) -> None:
        """Close all catalogs."""


class Lease:
    """A revision and the number of those who use it; touched by the event loop alone.

    The mount itself holds the current revision. A superseded one lives on for nodes and directory
    handles of it that the kernel still knows.

    Args:
        view: The revision.
        on_idle: Called with the revision when the last user is gone.
    """

    __slots__ = ("_on_idle", "_users", "cached", "view")

    def __init__(self, view: LiveRevision, on_idle: Callable[[LiveRevision], None]) -> None:
        self.view = view
        self.cached = view.offline
        self._on_idle = on_idle
        self._users = 1

    @property
    def users(self) -> int:
        """How many hold it."""
        return self._users

    def acquire(self) -> Self:
        """One more user."""
        if self._users == 0:
            raise RuntimeError("the revision is closed")
        self._users += 1
        return self

    def release(self) -> None:
        """One user less; the last one lets the revision be closed."""
        self._users -= 1
        if self._users == 0:
            self._on_idle(self.view)
