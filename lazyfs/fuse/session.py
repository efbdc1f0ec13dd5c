"""One FUSE session: from the kernel's mount to its end."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pyfuse3
import trio

from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.mountinfo import find_mount
from lazyfs.fuse.refresh import Follower
from lazyfs.fuse.transport import Pyfuse3Invalidator, Pyfuse3Transport

log = logging.getLogger("lazyfs.fuse")

MAX_TASKS = 128
"""Requests in hand at a time, so that readers waiting for the network leave room for others."""


async def serve(
    filesystem: Filesystem,
    mountpoint: Path,
    options: frozenset[str],
    *,
    task_status: trio.TaskStatus[Follower] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount, answer the kernel until it is unmounted or this is cancelled, then unmount.

    Args:
        filesystem: What to serve; not closed here.
        mountpoint: An existing directory.
        options: FUSE mount options.
        task_status: Told the `Follower` once the kernel has the mount.

    Raises:
        RuntimeError: the kernel or fusermount3 refuses the mount.
    """
    pyfuse3.init(Pyfuse3Transport(filesystem), str(mountpoint), set(options))
    unmount = True
    try:
        raise_read_ahead(mountpoint, filesystem.settings.read_ahead_kib)
        follower = Follower(filesystem, Pyfuse3Invalidator())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.run)
            for _ in range(filesystem.settings.prefetch_chunks):
                nursery.start_soon(filesystem.run_read_ahead)
            task_status.started(follower)
            # Ends when the kernel says that nothing is mounted any more.
            await pyfuse3.main(min_tasks=1, max_tasks=MAX_TASKS)
            unmount = False
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=unmount)


def raise_read_ahead(mountpoint: Path, kib: int) -> None:
    """Let the kernel read ``kib`` KiB ahead on this mount, where that is permitted.

    Sequential reads then arrive in pieces of up to 1 MiB in place of 128 KiB.
    """
    mount = find_mount(mountpoint)
    if mount is None or not kib:
        return
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(f"{kib}\n")
