"""The registry: which mounts this user has, who serves them, where their control socket is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lazyfs.cas.layout import replace_file
from lazyfs.errors import MountError
from lazyfs.fuse.mountinfo import FILESYSTEM_TYPE, absolute, mounts


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount."""

    fqrn: str
    mountpoint: str
    pid: int
    started: float
    """Unix time."""
    socket: str
    """Control socket."""

    @property
    def alive(self) -> bool:
        """Whether its process answers the socket: pids are reused, and zombies have one too."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            try:
                connection.connect(self.socket)
            except BlockingIOError:
                return True
            except OSError:
                return False
        return True


def runtime_directory() -> Path:
    """Where this user's entries and sockets lie; made if need be.

    Raises:
        MountError: it belongs to somebody else.
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
    except OSError as exc:
        raise MountError(f"cannot create: {exc.strerror}", path=str(directory)) from exc
    if directory.stat().st_uid != os.geteuid():
        raise MountError("the directory belongs to another user", path=str(directory))
    return directory


class Registry:
    """The entries in one directory.

    Args:
        directory: Where they lie.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _stem(self, mountpoint: Path) -> Path:
        # Socket addresses are short, mount points need not be.
        name = hashlib.sha1(os.fsencode(mountpoint), usedforsecurity=False).hexdigest()[:16]
        return self._directory / name

    def socket_path(self, mountpoint: Path) -> Path:
        """Where the control socket of a mount is."""
        return self._stem(absolute(mountpoint)).with_suffix(".sock")

    def add(self, entry: MountEntry) -> None:
        """Register a mount."""
        path = self._stem(Path(entry.mountpoint)).with_suffix(".json")
        replace_file(path, json.dumps(asdict(entry)).encode())

    def remove(self, mountpoint: Path) -> None:
        """Forget a mount."""
        stem = self._stem(absolute(mountpoint))
        for suffix in (".json", ".sock"):
            stem.with_suffix(suffix).unlink(missing_ok=True)

    def entries(self) -> Iterator[MountEntry]:
        """All entries, those of dead processes included."""
        for path in sorted(self._directory.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                yield MountEntry(**json.loads(path.read_bytes()))

    def find(self, name: str) -> MountEntry | None:
        """The entry of a mount point, or of a repository's name if it is mounted once."""
        wanted = str(absolute(Path(name)))
        live = self.live()
        for entry in live:
            if entry.mountpoint == wanted:
                return entry
        named = [entry for entry in live if entry.fqrn == name]
        return named[0] if len(named) == 1 else None

    def live(self) -> list[MountEntry]:
        """Entries whose process runs and whose mount is there; the others are forgotten."""
        mounted = {str(m.mountpoint) for m in mounts() if m.kind == FILESYSTEM_TYPE}
        live = []
        for entry in self.entries():
            if entry.alive and entry.mountpoint in mounted:
                live.append(entry)
            elif not entry.alive:
                self.remove(Path(entry.mountpoint))
        return live
