"""`TargetStore`: reads a repository from where it is published to, past every cache and server."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from lazyfs.cas.digest import Digest
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.store import ObjectRef
from lazyfs.cas.verify import NullSink, ObjectReceiver
from lazyfs.errors import ObjectMissing, PublishError
from lazyfs.publish.target import UploadTarget
from lazyfs.repository.catalog_tree import CatalogTree
from lazyfs.repository.revision import Revision, RevisionInfo

_CATALOG_MEMORY = 64 << 20
"""Bytes of their page caches; the catalogs themselves lie in files."""

_OPEN_CATALOGS = 64
"""Of one revision; each is a descriptor and SQLite's page cache."""


class TargetStore:
    """A `VerifyingStore` over a target; what is open lies in a folder, not in memory.

    Args:
        target: Where objects come from.
        workspace: A folder for what is open.
        content: `verify` reads objects; False: it only looks whether they are there.
    """

    def __init__(self, target: UploadTarget, workspace: Path, *, content: bool = True) -> None:
        self.target = target
        self.workspace = workspace
        self._content = content

    def open(self, ref: ObjectRef) -> FileHandle:
        """The object's verified content; the caller closes the handle.

        Raises:
            ObjectMissing: it is not there.
            VerificationError, FormatError: something else is.
            PublishError: the target cannot be reached, or the workspace is full.
        """
        with _Spool(self.workspace) as spool:
            self.target.fetch(ref, ObjectReceiver(ref, spool))
            return spool.handle()

    def peek(self, ref: ObjectRef) -> FileHandle | None:
        """The content if the object is there."""
        try:
            return self.open(ref)
        except ObjectMissing:
            return None

    def verify(self, ref: ObjectRef) -> None:
        """Return if the object is in order; raises as `open`."""
        if ref.external is not None:
            return  # its bytes are served from elsewhere
        if self._content:
            self.target.fetch(ref, ObjectReceiver(ref, NullSink()))
        elif not self.target.has(ref.digest.object_path(ref.kind)):
            raise ObjectMissing("the object is not there", object=str(ref))

    def revision(self, fqrn: str, root: Digest, *, size: int = 0, tag: str = "") -> Revision:
        """Any revision of which the root catalog is there; the caller closes it.

        Args:
            fqrn: The repository's name.
            root: Digest of the root catalog.
            size: Of the root catalog as recorded, in bytes; 0: not recorded.
            tag: For people.

        Raises:
            LazyfsError: the root catalog cannot be read.
        """
        info = RevisionInfo(fqrn, root, size, tag)
        tree = CatalogTree(
            self, fqrn, root, root_size=size, limit=_OPEN_CATALOGS, memory=_CATALOG_MEMORY
        )
        return Revision(info, tree, self, {})


@contextlib.contextmanager
def opened_store(target: UploadTarget, *, content: bool = True) -> Iterator[TargetStore]:
    """A `TargetStore` whose workspace goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="lazyfs-publish-") as folder:
        yield TargetStore(target, Path(folder), content=content)


class _Spool:
    """A sink that becomes a handle on a file, which goes with it."""

    def __init__(self, folder: Path) -> None:
        try:
            self._fd, name = tempfile.mkstemp(prefix="object-", dir=folder)
        except OSError as exc:
            raise _disk_error(exc, folder) from exc
        self._path = Path(name)
        self._size = 0

    def restart(self) -> None:
        """Forget everything written."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append content."""
        view = memoryview(data)
        self._size += len(view)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            raise _disk_error(exc, self._path) from exc

    def handle(self) -> FileHandle:
        """The content; the spool takes no more."""
        fd, self._fd = self._fd, -1
        return _SpooledHandle(fd, self._size, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._path.unlink(missing_ok=True)


class _SpooledHandle(FileHandle):
    """A handle whose file goes when it is closed."""

    __slots__ = ()

    def close(self) -> None:
        """Release the descriptor and remove the file."""
        if self.fileno() >= 0:
            super().close()
            if self.path is not None:
                self.path.unlink(missing_ok=True)


def _disk_error(exc: OSError, path: Path) -> PublishError:
    return PublishError(
        f"cannot write: {exc.strerror}",
        path=str(path),
        hint="make room there, or set TMPDIR to a larger disk",
    )
