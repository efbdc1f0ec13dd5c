"""`DirectoryTarget`: a repository in a folder, laid out as web servers serve it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from lazyfs.cas.directory_store import DirectoryStore
from lazyfs.cas.layout import replace_file
from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.errors import PublishError
from lazyfs.publish.target import DOCUMENT_LIMIT, Document, StoredObject

FILE_MODE = 0o644
"""What a web server needs to read."""

_STAGING = "data/txn"


class DirectoryTarget:
    """A folder on this machine, or one that several machines share.

    Args:
        root: The folder that will hold ``.cvmfspublished`` and ``data``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / _STAGING

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def prepare(self) -> None:
        """Make the folders."""
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            for number in range(256):
                (self.root / "data" / f"{number:02x}").mkdir(exist_ok=True)
        except OSError as exc:
            raise PublishError(f"cannot create: {exc.strerror}", path=str(exc.filename)) from exc

    # --- objects -----------------------------------------------------------------------------

    def has(self, path: str) -> bool:
        """Whether there is an object at ``path``."""
        return os.path.exists(f"{self.root}/{path}")  # noqa: PTH110 - asked for each file

    def upload(self) -> DirectoryUpload:
        """A new upload: a file in the staging folder."""
        return DirectoryUpload(self.root, self._staging)

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        """Deliver the stored bytes of one object."""
        DirectoryStore(self.root).fetch(ref, receiver)

    def objects(self) -> Iterator[StoredObject]:
        """All objects, and what killed publishers left in the staging folder."""
        try:
            for folder in sorted((self.root / "data").iterdir()):
                for entry in os.scandir(folder):
                    status = entry.stat(follow_symlinks=False)
                    path = f"data/{folder.name}/{entry.name}"
                    yield StoredObject(path, status.st_size, status.st_mtime)
        except OSError as exc:
            raise PublishError(f"cannot list: {exc.strerror}", path=str(exc.filename)) from exc

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files."""
        for path in paths:
            try:
                (self.root / path).unlink(missing_ok=True)
            except OSError as exc:
                raise PublishError(
                    f"cannot remove: {exc.strerror}", path=str(self.root / path)
                ) from exc

    # --- documents ---------------------------------------------------------------------------

    def read(self, path: str) -> Document | None:
        """A whole file, None if there is none."""
        try:
            with (self.root / path).open("rb") as file:
                content = file.read(DOCUMENT_LIMIT + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise PublishError(f"cannot read: {exc.strerror}", path=str(self.root / path)) from exc
        if len(content) > DOCUMENT_LIMIT:
            raise PublishError("too large for a document", path=str(self.root / path))
        return Document(content, _version(content))

    def replace(self, path: str, content: bytes) -> None:
        """Put a document at ``path`` by rename."""
        try:
            replace_file(self.root / path, content, FILE_MODE)
        except OSError as exc:
            raise PublishError(f"cannot write: {exc.strerror}", path=str(self.root / path)) from exc

    def replace_if(self, path: str, content: bytes, version: str | None) -> str | None:
        """As `replace`, if the document is still what the caller knows."""
        with self._exclusive():
            there = self.read(path)
            if (there and there.version) != version:
                return None
            self.replace(path, content)
        return _version(content)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Compare and replace as one step; the kernel drops the lock of a process that dies."""
        path = self._staging / "documents.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise PublishError(
                f"cannot lock: {exc.strerror}",
                path=str(path),
                hint="make the repository with 'lazyfs publish init'",
            ) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class DirectoryUpload:
    """One object on its way into a folder: a file in ``data/txn``, renamed at the end.

    There may be a million of them: paths are text, and nothing is buffered twice.
    """

    def __init__(self, root: Path, staging: Path) -> None:
        self._root = root
        self._path: str | None = f"{staging}/{secrets.token_hex(12)}"
        try:
            self._fd = os.open(self._path, _CREATE, FILE_MODE)
        except OSError as exc:
            raise _disk_error(exc) from exc

    def write(self, data: bytes) -> None:
        """Append stored bytes."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            raise _disk_error(exc) from exc

    def commit(self, path: str, *, replace: bool = False) -> bool:
        """Make it visible at ``path``; False if an object was there already and stays."""
        assert self._path is not None
        target = f"{self._root}/{path}"
        try:
            if not replace and os.path.exists(target):  # noqa: PTH110 - see the class
                self.discard()
                return False
            os.fchmod(self._fd, FILE_MODE)  # whatever the umask
            os.replace(self._path, target)  # noqa: PTH105 - see the class
        except OSError as exc:
            raise _disk_error(exc) from exc
        self._path = None
        os.close(self._fd)
        return True

    def discard(self) -> None:
        """Forget it, unless it was committed."""
        path, self._path = self._path, None
        if path is not None:
            os.close(self._fd)
            Path(path).unlink(missing_ok=True)


_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def _disk_error(exc: OSError) -> PublishError:
    return PublishError(
        f"cannot write: {exc.strerror}",
        path=str(exc.filename or ""),
        hint="nothing is published until all is written: make room and publish again",
    )
