"""What is mounted, read from ``/proc/self/mountinfo``: no mount point is ever touched for it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILESYSTEM_TYPE = "fuse.lazyfs"

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    device: str
    """``major:minor``"""
    mountpoint: Path
    kind: str
    """File system type."""
    source: str


def parse_mountinfo(content: str) -> Iterator[Mount]:
    """The mounts that ``content`` lists."""
    for line in content.splitlines():
        before, found, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if found and len(left) >= 6 and len(right) >= 2:
            yield Mount(left[2], Path(_unescape(left[4])), right[0], _unescape(right[1]))


def _unescape(text: str) -> str:
    raw = _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
    return raw


def mounts() -> list[Mount]:
    """All mounts of this process's namespace."""
    content = Path("/proc/self/mountinfo").read_bytes()
    return list(parse_mountinfo(content.decode(errors="surrogateescape")))


def find_mount(mountpoint: Path) -> Mount | None:
    """The topmost mount at just that path, None if nothing is mounted there."""
    path = absolute(mountpoint)
    return next((mount for mount in reversed(mounts()) if mount.mountpoint == path), None)


def parse_mounted_upon(content: str, device: str) -> Iterator[bytes]:
    """Paths within the file system of ``device`` that something is mounted upon.

    Written as those of nodes; of bind mounts of a part of it too.
    """
    rows = [line.split(" ") for line in content.splitlines()]
    own = {row[0]: row for row in rows if len(row) > 4 and row[2] == device}
    for row in rows:
        below = own.get(row[1]) if len(row) > 4 else None
        if below is not None and row is not below:
            root, mountpoint = _path_of(below[3]), _path_of(below[4])
            yield root + _path_of(row[4]).removeprefix(mountpoint)


def _path_of(field: str) -> bytes:
    return _unescape(field).encode(errors="surrogateescape").rstrip(b"/")


def find_mounted_upon(device: str) -> set[bytes]:
    """As `parse_mounted_upon`, in all mount namespaces that this process may look into."""
    seen: set[str] = set()
    found: set[bytes] = set()
    for process in os.listdir("/proc"):  # noqa: PTH208
        # Processes come, go, and are of others.
        with contextlib.suppress(OSError):
            if not process.isdecimal():
                continue
            namespace = os.readlink(f"/proc/{process}/ns/mnt")  # noqa: PTH115
            if namespace not in seen:
                content = Path(f"/proc/{process}/mountinfo").read_bytes()
                seen.add(namespace)
                found.update(parse_mounted_upon(content.decode(errors="surrogateescape"), device))
    return found


def absolute(path: Path) -> Path:
    """``path`` with links in its parents resolved; the last component is not touched."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would stat a dead mount
    return whole.parent.resolve() / whole.name if whole.name else whole
