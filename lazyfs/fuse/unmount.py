"""Ending mounts, and taking away what killed ones left. Needs no FUSE library.

Nothing here waits for a mount that does not answer: mount points are not touched but in `probe`,
which is bounded.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import logging
import os
import select
import subprocess
import threading
from pathlib import Path

from lazyfs.errors import MountError, NotMounted
from lazyfs.fuse.mountinfo import FILESYSTEM_TYPE, Mount, absolute, find_mount
from lazyfs.fuse.registry import Registry

log = logging.getLogger("lazyfs.fuse")

UMOUNT_SECONDS = 20.0
"""How long `unmount` waits for the mount process to end; it ends in well under a second unless the
machine is loaded."""

PROBE_SECONDS = 5.0
"""How long `probe` waits for an answer."""

MAX_LINKS = 40
"""Links followed to a mount point, as by the kernel."""

_HELPER_SECONDS = 30.0

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
"""Flags of umount(2)."""


class Health(enum.Enum):
    """What a mount point says when it is asked."""

    ALIVE = "answers"
    DEAD = "the process behind it is gone"
    SILENT = "does not answer"


def probe(mountpoint: Path, seconds: float = PROBE_SECONDS) -> Health:
    """Whether the process behind a FUSE mount answers.

    Asked with statfs, because the kernel answers `stat` from its own cache. A thread is left
    behind if there is no answer.
    """
    answers: list[int] = []

    def ask() -> None:
        try:
            os.statvfs(mountpoint)
        except OSError as exc:
            answers.append(exc.errno or errno.EIO)
        else:
            answers.append(0)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        return Health.SILENT
    dead = answers[0] in (errno.ENOTCONN, errno.ECONNABORTED)
    return Health.DEAD if dead else Health.ALIVE


def locate(path: Path) -> Path:
    """The absolute path of a mount point, links resolved; what is mounted there is not touched."""
    where = absolute(path)
    for _ in range(MAX_LINKS):
        # A mount point is never a link, so it need not be looked at.
        if find_mount(where) is not None or not where.is_symlink():
            break
        where = absolute(where.parent / where.readlink())
    return where


def prepare_mountpoint(mountpoint: Path, registry: Registry) -> None:
    """Make sure that something can be mounted there; stale mounts are taken away.

    Args:
        mountpoint: As `locate` gives it.
        registry: Cleared of what killed mounts left.

    Raises:
        MountError: it is no directory, or a live mount of lazyfs is there already.
    """
    registry.forget_dead()
    while (mount := find_mount(mountpoint)) is not None and mount.kind == FILESYSTEM_TYPE:
        _refuse_live(mount, registry)
        log.info("taking away the mount that a killed process left at %s", mountpoint)
        detach(mountpoint, lazy=True)
    try:
        is_directory = mountpoint.is_dir()
    except OSError as exc:
        raise MountError(f"cannot mount there: {exc.strerror}", path=str(mountpoint)) from exc
    if not is_directory:
        raise MountError("not a directory", path=str(mountpoint), hint="make it with mkdir")


def _refuse_live(mount: Mount, registry: Registry) -> None:
    """Raise unless the process behind the mount is gone."""
    entry = registry.at(mount.mountpoint)
    if entry is not None:
        raise MountError(
            f"{entry.fqrn} is mounted there already, by process {entry.pid}",
            path=entry.mountpoint,
            hint="unmount it with 'lazyfs umount' first",
        )
    health = probe(mount.mountpoint)
    if health is not Health.DEAD:
        raise MountError(
            f"{mount.source} is mounted there already, and {health.value}",
            path=str(mount.mountpoint),
            hint="unmount it with 'lazyfs umount' first, with --lazy if it is stuck",
        )


def detach(mountpoint: Path, *, lazy: bool) -> None:
    """Unmount what is on top at ``mountpoint``, as root or as the user who mounted.

    Args:
        mountpoint: As `locate` gives it.
        lazy: Take it out of sight now, whatever still uses it.

    Raises:
        MountError: it is busy, or not permitted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    if libc.umount2(os.fsencode(mountpoint), flags) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EPERM:
        _detach_as_user(mountpoint, lazy=lazy)
    else:
        raise _refusal(os.strerror(number), mountpoint, busy=number == errno.EBUSY)


def _detach_as_user(mountpoint: Path, *, lazy: bool) -> None:
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(mountpoint)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise MountError(f"cannot unmount: {exc}", path=str(mountpoint)) from exc
    if done.returncode:
        reason = done.stderr.strip().removeprefix("fusermount3: ")
        if "not found in" in reason:
            # It looks for mounts of this user alone.
            reason = "only root and the user who mounted it may do so"
        raise _refusal(reason, mountpoint, busy="busy" in reason)


def _refusal(reason: str, mountpoint: Path, *, busy: bool) -> MountError:
    hint = "end what uses it ('fuser -vm' tells), or give --lazy" if busy else None
    return MountError(f"cannot unmount: {reason}", path=str(mountpoint), hint=hint)


def detach_own(mountpoint: Path, device: str) -> None:
    """Detach the mount of that device, whatever uses it; nothing if it is not there any more.

    After a lazy unmount somebody else's mount may be at the same place.
    """
    mount = find_mount(mountpoint)
    if mount is not None and mount.device == device:
        try:
            detach(mountpoint, lazy=True)
        except MountError as exc:
            log.warning("the mount stays behind: %s", exc)


def unmount(path: Path, registry: Registry, *, lazy: bool = False) -> None:
    """End the mount at ``path``; unless lazily, wait until its process is gone.

    Raises:
        NotMounted: nothing of lazyfs is mounted there.
        MountError: it is busy, or not permitted, or the process does not end.
    """
    where = locate(path)
    mount = find_mount(where)
    if mount is None or mount.kind != FILESYSTEM_TYPE:
        raise NotMounted("no lazyfs mount is there", path=str(where), hint="see 'lazyfs mounts'")
    entry = registry.at(where)
    process = _open_process(entry.pid) if entry is not None else None
    try:
        detach(where, lazy=lazy)
        if entry is None:
            registry.forget_dead()
        if process is not None and not lazy:
            _wait_for_end(process, where)
    finally:
        if process is not None:
            os.close(process)


def _wait_for_end(process: int, where: Path) -> None:
    if not select.select([process], [], [], UMOUNT_SECONDS)[0]:
        raise MountError("unmounted, but its process has not ended yet", path=str(where))


def _open_process(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None if it has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
