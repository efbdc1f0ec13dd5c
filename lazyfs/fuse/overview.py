"""What is mounted, and how it is: for `lazyfs mounts`. No mount point is touched."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lazyfs.errors import ControlError
from lazyfs.fuse.control_client import QUICK_SECONDS, ask
from lazyfs.fuse.mountinfo import FILESYSTEM_TYPE, Mount, mounts
from lazyfs.fuse.registry import MountEntry, Registry

PARALLEL = 16
"""Mounts asked at a time, so that several that hang cost the time of one."""


class MountState(enum.Enum):
    """How a mount is."""

    MOUNTED = "mounted"
    SILENT = "does not answer"
    DETACHED = "detached, still in use"
    DEAD = "dead: its process was killed"
    FOREIGN = "of another user, or left by a killed process"


@dataclass(frozen=True, slots=True)
class MountReport:
    """One mount, or what is left of one. Unknown facts are None."""

    fqrn: str
    mountpoint: str
    state: MountState
    pid: int | None = None
    revision: int | None = None
    since: float | None = None
    """Unix time."""


def survey(registry: Registry) -> list[MountReport]:
    """All mounts of lazyfs that this user can see; takes `QUICK_SECONDS` when some hang."""
    visible = [mount for mount in mounts() if mount.kind == FILESYSTEM_TYPE]
    entries = list(registry.entries())
    with ThreadPoolExecutor(PARALLEL) as pool:
        known = list(pool.map(lambda entry: _report(entry, visible), entries))
    registered = {(entry.mountpoint, entry.device) for entry in entries}
    return [report for report in known if report] + list(_foreign(visible, registered))


def _report(entry: MountEntry, visible: list[Mount]) -> MountReport | None:
    """How an entry's mount is; None if nothing is left of it."""
    there = any(
        (str(mount.mountpoint), mount.device) == (entry.mountpoint, entry.device)
        for mount in visible
    )
    if not entry.alive:
        dead = MountReport(entry.fqrn, entry.mountpoint, MountState.DEAD)
        return dead if there else None
    revision = _revision(entry)
    state = MountState.MOUNTED if there else MountState.DETACHED
    if revision is None:
        state = MountState.SILENT
    return MountReport(
        entry.fqrn, entry.mountpoint, state, entry.pid, revision, since=entry.started
    )


def _revision(entry: MountEntry) -> int | None:
    try:
        return int(ask(Path(entry.socket), ["revision"], timeout=QUICK_SECONDS))
    except ControlError:
        return None


def _foreign(visible: list[Mount], registered: set[tuple[str, str]]) -> Iterator[MountReport]:
    for mount in visible:
        if (str(mount.mountpoint), mount.device) not in registered:
            yield MountReport(mount.source, str(mount.mountpoint), MountState.FOREIGN)
