"""`Kernel`: what the file system tells the kernel unasked."""

from __future__ import annotations

from typing import Protocol


class Kernel(Protocol):
    """Drops what the kernel has cached.

    Both calls block until requests on the directory are answered, so they run in worker threads.
    What the kernel does not know is no error.
    """

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Forget that ``name`` exists, or does not, in the directory with nodeid ``parent``."""

    def drop_attributes(self, nodeid: int) -> None:
        """Forget the attributes of a node, not its data."""


class NoKernel:
    """Nothing is mounted, so nothing is cached anywhere."""

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Do nothing."""

    def drop_attributes(self, nodeid: int) -> None:
        """Do nothing."""
