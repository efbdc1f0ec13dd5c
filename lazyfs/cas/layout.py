"""The cache directory: names, locks and the few file operations that must be right.

::

    lazyfs-cache        sentinel, holds the format version
    objects/xx/REST     content, uncompressed; xx + REST is `ObjectRef.key`
    tmp/                objects being written; each holds an exclusive flock while its owner lives
    quarantine/         damaged objects, kept until the next sweep
    index.db            what is where, see `lazyfs.cas.index`
    state/…             small documents of whoever uses the cache
"""

from __future__ import annotations

import contextlib
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
            if not self.sentinel.exists():
                raise CacheError(
                    f"cannot create the cache: {exc.strerror}",
                    path=str(self.root),
                    hint="give another directory with --cache",
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

    def object_path(self, key: str) -> Path:
        """Where the object ``key`` lies."""
        return self.objects / key[:2] / key[2:]

    def object_keys(self) -> Iterator[tuple[str, Path]]:
        """Every file that lies where objects lie, with the key its place says."""
        for shard in sorted(self.objects.iterdir()):
            if shard.is_dir():
                for path in sorted(shard.iterdir()):
                    yield shard.name + path.name, path


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


def remove_if_unused(path: Path) -> bool:
    """Unlink ``path`` unless some process holds it; True if it is gone afterwards."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not try_lock(fd, exclusive=True):
            return False
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
