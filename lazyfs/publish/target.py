"""Where a repository is published to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lazyfs.cas.layout import replace_file
from lazyfs.errors import PublishError

FILE_MODE = 0o644
"""What a web server needs to read."""


class Upload(Protocol):
    """One object on its way; nothing is visible before `commit`."""

    def write(self, data: bytes) -> None:
        """Append stored bytes."""

    def commit(self, path: str) -> bool:
        """Make it visible at ``path``; False if an object was there already."""

    def discard(self) -> None:
        """Forget it, unless it was committed."""


class UploadTarget(Protocol):
    """A place that a web server serves. Safe to use from many threads."""

    def has(self, path: str) -> bool:
        """Whether there is an object at ``path``."""

    def upload(self) -> Upload:
        """A new upload."""

    def read(self, path: str) -> bytes | None:
        """A whole small file, None if there is none."""

    def replace(self, path: str, content: bytes) -> None:
        """Put a document at ``path``; readers see the old or the whole new one."""

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Keep other publishers out."""


class DirectoryTarget:
    """A folder on this machine, laid out as web servers serve it.

    Args:
        root: The folder that will hold ``.cvmfspublished`` and ``data``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / "data" / "txn"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            PublishError: they cannot be made.
        """
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            for number in range(256):
                (self.root / "data" / f"{number:02x}").mkdir(exist_ok=True)
        except OSError as exc:
            raise PublishError(f"cannot create: {exc.strerror}", path=str(exc.filename)) from exc

    def has(self, path: str) -> bool:
        """Whether there is an object at ``path``."""
        return (self.root / path).exists()

    def upload(self) -> DirectoryUpload:
        """A new upload.

        Raises:
            PublishError: the disk refuses.
        """
        return DirectoryUpload(self.root, self._staging)

    def read(self, path: str) -> bytes | None:
        """A whole file, None if there is none."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise PublishError(f"cannot read: {exc.strerror}", path=str(self.root / path)) from exc

    def replace(self, path: str, content: bytes) -> None:
        """Put a document at ``path`` by rename."""
        try:
            replace_file(self.root / path, content, FILE_MODE)
        except OSError as exc:
            raise PublishError(f"cannot write: {exc.strerror}", path=str(self.root / path)) from exc

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other publishers out; a lock does not outlive its process.

        Raises:
            PublishError: another publisher is at work.
        """
        path = self._staging / "publisher.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise PublishError(
                f"cannot lock: {exc.strerror}",
                path=str(path),
                hint="make the repository with 'lazyfs publish init'",
            ) from exc
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise PublishError(
                    "another publisher is at work", path=str(self.root), hint="wait for it to end"
                ) from exc
            yield
        finally:
            os.close(fd)


class DirectoryUpload:
    """One object on its way into a folder: a file in ``data/txn``, renamed at the end."""

    def __init__(self, root: Path, staging: Path) -> None:
        self._root = root
        try:
            fd, name = tempfile.mkstemp(dir=staging)
        except OSError as exc:
            raise _disk_error(exc) from exc
        self._file = os.fdopen(fd, "wb")
        self._path: Path | None = Path(name)

    def write(self, data: bytes) -> None:
        """Append stored bytes.

        Raises:
            PublishError: the disk refuses.
        """
        try:
            self._file.write(data)
        except OSError as exc:
            raise _disk_error(exc) from exc

    def commit(self, path: str) -> bool:
        """Make it visible at ``path``; False if an object was there already.

        Raises:
            PublishError: the disk refuses.
        """
        assert self._path is not None
        target = self._root / path
        try:
            if target.exists():
                self.discard()
                return False
            self._file.flush()
            os.fchmod(self._file.fileno(), FILE_MODE)
            self._file.close()
            self._path.rename(target)
            self._path = None
        except OSError as exc:
            raise _disk_error(exc) from exc
        return True

    def discard(self) -> None:
        """Forget it, unless it was committed."""
        path, self._path = self._path, None
        if path is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            path.unlink(missing_ok=True)


def _disk_error(exc: OSError) -> PublishError:
    return PublishError(f"cannot write: {exc.strerror}", path=str(exc.filename or ""))
