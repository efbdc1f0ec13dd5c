"""The cache directory: names, locks and the few file operations that must be right.

::

    lazyfs-cache        sentinel, holds the format version
    objects/xx/REST     content, uncompressed; xx + REST is `ObjectRef.key`
    tmp/                objects being written; each holds an exclusive flock while its owner lives
    index.db            what is where, see `lazyfs.cas.index`
    index.lock          locked while a new index is made
    state/…             small documents of whoever uses the cache
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lazyfs.errors import CacheError

FORMAT = "1\n"
"""Version of the layout; another one is refused, not guessed."""


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Paths below one cache directory."""

    root: Path

    def prepare(self) -> bool:
        """Create what is missing; whether the directory can be written.

        Raises:
            CacheError: the directory is of another format, or cannot be made.
        """
        try:
            for directory in (self.root, self.objects, self.temporary, self.state):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            writable = os.access(self.temporary, os.W_OK)
        except OSError as exc:
            # Not Path.exists: it raises where the directory may not even be searched.
            if not os.access(self.sentinel, os.R_OK):
                raise CacheError(
                    f"cannot open or create the cache: {exc.strerror}",
                    path=str(self.root),
                    hint="give a directory of your own with --cache",
                ) from exc
            writable = False
        self._check_sentinel(writable)
        return writable

    def _check_sentinel(self, writable: bool) -> None:
        if not self.sentinel.exists() and writable:
            replace_file(self.sentinel, FORMAT.encode())
        found = self.sentinel.read_text(errors="replace") if self.sentinel.exists() else FORMAT
        if found != FORMAT:
            raise CacheError(
                f"the cache has format {found.strip()!r}, this version reads {FORMAT.strip()!r}",
                path=str(self.root),
                hint="use another directory, or remove this one",
            )

    @property
    def sentinel(self) -> Path:
        """The file that says that this is a cache."""
        return self.root / "lazyfs-cache"

    @property
    def objects(self) -> Path:
        """Where content lies."""
        return self.root / "objects"

    @property
    def temporary(self) -> Path:
        """Where content is written."""
        return self.root / "tmp"

    @property
    def state(self) -> Path:
        """Where users of the cache keep small documents."""
        return self.root / "state"

    @property
    def index(self) -> Path:
        """The SQLite index."""
        return self.root / "index.db"

    @property
    def index_lock(self) -> Path:
        """Locked by the one process that makes a new index."""
        return self.root / "index.lock"

    def object_path(self, key: str) -> Path:
        """Where the object ``key`` lies."""
        return self.objects / key[:2] / key[2:]

    def object_keys(self) -> Iterator[tuple[str, Path]]:
        """Every file that lies where objects lie, with the key its place says."""
        for shard in _listed(self.objects):
            for path in _listed(shard):
                yield shard.name + path.name, path

    def temporary_files(self) -> list[Path]:
        """Every file in ``tmp``, whoever wrote it."""
        return _listed(self.temporary)


def _listed(directory: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing if it is none, or was just taken away."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put ``content`` at ``path``; readers see the old file or the whole new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Whether the flock was had without waiting."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def open_object(path: Path) -> int:
    """A descriptor for a file that others may have put there.

    Links are not followed, and no pipe is waited for.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def is_at(fd: int, path: Path) -> bool:
    """Whether ``path`` names the open file."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def is_unused(path: Path) -> bool:
    """Whether a file is there that no process holds."""
    try:
        fd = open_object(path)
    except OSError:
        return path.is_symlink()
    try:
        return try_lock(fd, exclusive=True) and is_at(fd, path)
    except OSError:
        return False
    finally:
        os.close(fd)


def remove_if_unused(path: Path) -> bool:
    """Unlink ``path`` unless some process holds it; True if it is gone afterwards."""
    try:
        fd = open_object(path)
    except FileNotFoundError:
        return True
    except OSError as exc:
        return exc.errno == errno.ELOOP and _unlink(path)
    try:
        return try_lock(fd, exclusive=True) and _unlink(path)
    except OSError:
        return False
    finally:
        os.close(fd)


def _unlink(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
