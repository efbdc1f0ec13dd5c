"""The registry: which mounts this user has, who serves them, where their control socket is."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lazyfs.cas.layout import remove_if_unused, replace_file
from lazyfs.errors import MountError
from lazyfs.fuse.mountinfo import absolute, find_mount

MAX_ENTRY_BYTES = 65536


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount and the process that serves it."""

    fqrn: str
    mountpoint: str
    device: str
    """``major:minor``. Tells the mount from one that was made later at the same place."""
    pid: int
    started: float
    """Unix time."""
    socket: str
    """Control socket."""

    @property
    def alive(self) -> bool:
        """Whether a process listens on the socket: pids are reused, and zombies have one too."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            try:
                connection.connect(self.socket)
            except BlockingIOError:
                return True
            except OSError:
                return False
        return True

    @property
    def mounted(self) -> bool:
        """Whether it is what is seen at its mount point; False once it was detached lazily."""
        mount = find_mount(Path(self.mountpoint))
        return mount is not None and mount.device == self.device


def runtime_directory() -> Path:
    """Where this user's entries and sockets lie; made if need be.

    ``LAZYFS_RUNTIME_DIR``, else ``/run/lazyfs`` for root, else ``$XDG_RUNTIME_DIR/lazyfs``, else a
    folder in the directory for temporary files.

    Raises:
        MountError: it cannot be made, or others could write there.
    """
    if chosen := os.environ.get("LAZYFS_RUNTIME_DIR"):
        directory = Path(chosen)
    elif os.geteuid() == 0:
        directory = Path("/run/lazyfs")
    elif base := os.environ.get("XDG_RUNTIME_DIR"):
        directory = Path(base) / "lazyfs"
    else:
        directory = Path(tempfile.gettempdir()) / f"lazyfs-{os.geteuid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as exc:
        raise MountError(f"cannot create: {exc.strerror}", path=str(directory)) from exc
    # Where all may write, somebody else may have made it first, or a link in its place.
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022:
        raise MountError(
            "others may write there, so control sockets cannot be trusted",
            path=str(directory),
            hint="remove it, or set LAZYFS_RUNTIME_DIR",
        )
    return directory


class Registry:
    """The entries in one directory.

    Args:
        directory: Where they lie; see `runtime_directory`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def new_socket_path(self) -> Path:
        """A control socket for this process. Short, because addresses of sockets must be."""
        return self._directory / f"{os.getpid()}-{secrets.token_hex(4)}.sock"

    def add(self, entry: MountEntry) -> None:
        """Register a mount whose control socket listens.

        Raises:
            MountError: the entry cannot be written.
        """
        path = Path(entry.socket).with_suffix(".json")
        try:
            replace_file(path, json.dumps(asdict(entry)).encode())
        except OSError as exc:
            raise MountError(f"cannot write: {exc.strerror}", path=str(path)) from exc

    def remove(self, socket_path: Path) -> None:
        """Forget a mount."""
        for suffix in (".json", ".sock"):
            socket_path.with_suffix(suffix).unlink(missing_ok=True)

    def entries(self) -> Iterator[MountEntry]:
        """All entries, those of dead processes included, the oldest first."""
        found = []
        for path in self._directory.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError), path.open("rb") as file:
                found.append(MountEntry(**json.loads(file.read(MAX_ENTRY_BYTES))))
        yield from sorted(found, key=lambda entry: (entry.started, entry.pid))

    def live(self) -> list[MountEntry]:
        """Entries whose process listens."""
        return [entry for entry in self.entries() if entry.alive]

    def forget_dead(self) -> None:
        """Remove what killed processes left here."""
        for entry in self.entries():
            if not entry.alive:
                self.remove(Path(entry.socket))
        for path in self._directory.glob("*.lock"):
            remove_if_unused(path)

    def at(self, mountpoint: Path) -> MountEntry | None:
        """The live entry of what is mounted at that path."""
        where = str(absolute(mountpoint))
        entries = (entry for entry in self.live() if entry.mountpoint == where)
        return next((entry for entry in entries if entry.mounted), None)

    def find(self, name: str) -> MountEntry | None:
        """The live entry of a mount point, or of a repository's name.

        Raises:
            MountError: the repository is mounted more than once.
        """
        entry = self.at(Path(name))
        if entry is not None:
            return entry
        named = [entry for entry in self.live() if entry.fqrn == name]
        if len(named) > 1:
            places = ", ".join(entry.mountpoint for entry in named)
            raise MountError(f"{name} is mounted more than once", hint=f"name one of {places}")
        return named[0] if named else None

    @contextlib.contextmanager
    def making(self, mountpoint: Path) -> Iterator[None]:
        """Held while something is being mounted at ``mountpoint``: nobody else may meanwhile.

        Raises:
            MountError: somebody does so already.
        """
        name = hashlib.sha1(os.fsencode(mountpoint), usedforsecurity=False).hexdigest()[:16]
        path = self._directory / f"{name}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MountError(
                    "something is being mounted there just now", path=str(mountpoint)
                ) from None
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
        finally:
            os.close(fd)
