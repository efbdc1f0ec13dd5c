"""`DirectoryStore`: objects in a repository folder on this machine."""

from __future__ import annotations

from pathlib import Path

from lazyfs.cas.handle import FileHandle
from lazyfs.cas.origin import open_uncached
from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.errors import ObjectMissing

_PIECE = 1 << 18


class DirectoryStore:
    """Reads ``data/xx/…`` below a folder, verifying as for a server.

    Args:
        root: The folder that holds ``data``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        """Deliver one object.

        Raises:
            ObjectMissing: there is no such file.
            VerificationError, FormatError: the file holds something else.
        """
        path = self._root / ref.digest.object_path(ref.kind)
        receiver.restart()
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    receiver.write(piece)
        except OSError as exc:
            raise ObjectMissing(
                f"cannot read: {exc.strerror}", object=str(ref), path=str(path)
            ) from exc
        receiver.finish()

    def open(self, ref: ObjectRef) -> FileHandle:
        """The object's content in memory; the caller closes the handle."""
        return open_uncached(self, ref)

    def peek(self, ref: ObjectRef) -> FileHandle | None:
        """The content if the folder has the object."""
        try:
            return self.open(ref)
        except ObjectMissing:
            return None
