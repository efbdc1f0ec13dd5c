"""One FUSE session: from the kernel's mount to its end."""

from __future__ import annotations

import contextlib
import logging
import resource
from pathlib import Path

import pyfuse3
import trio

from lazyfs.errors import MountError
from lazyfs.fuse.blocking import run_blocking
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.mountinfo import find_mount
from lazyfs.fuse.transport import Pyfuse3Kernel, Pyfuse3Transport
from lazyfs.fuse.unmount import detach_own

log = logging.getLogger("lazyfs.fuse")

MAX_TASKS = 1024
"""Requests in hand at a time: so many readers may wait for the network before others must."""

MAX_BACKGROUND = 512
"""Reads ahead that the kernel sends before the first is answered. Its default of 12 would let a
dozen readers of dead servers stop all others."""


async def serve(
    filesystem: Filesystem,
    mountpoint: Path,
    options: frozenset[str],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount, answer the kernel until it is unmounted or this is cancelled, then unmount.

    Args:
        filesystem: What to serve; its handles are closed at the end, its repository is not.
        mountpoint: An existing directory.
        options: FUSE mount options.
        task_status: Told once the kernel has the mount.

    Raises:
        MountError: the kernel or fusermount3 refuses the mount.
    """
    _raise_descriptor_limit()
    transport = Pyfuse3Transport(filesystem)
    try:
        pyfuse3.init(transport, str(mountpoint), set(options))
    except RuntimeError as exc:
        raise MountError(
            f"the mount was refused: {exc}",
            path=str(mountpoint),
            hint="see the lines before; is /dev/fuse there, and fusermount3 installed?",
        ) from exc
    mount = find_mount(mountpoint)
    filesystem.device = mount.device if mount is not None else ""
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(filesystem.run)
            nursery.start_soon(_announce, filesystem, mountpoint, transport, task_status)
            # Ends when the kernel says that nothing is mounted any more.
            await pyfuse3.main(min_tasks=1, max_tasks=MAX_TASKS)
            nursery.cancel_scope.cancel()
    finally:
        filesystem.kernel = transport.no_kernel
        # libfuse would unmount whatever is there by now, not just this mount.
        if mount is not None:
            detach_own(mountpoint, mount.device)
        pyfuse3.close(unmount=mount is None)
        filesystem.close()


async def _announce(
    filesystem: Filesystem,
    mountpoint: Path,
    transport: Pyfuse3Transport,
    task_status: trio.TaskStatus[None],
) -> None:
    await transport.initialised.wait()
    filesystem.kernel = Pyfuse3Kernel()
    await run_blocking(
        filesystem.workers.control, tune, mountpoint, filesystem.settings.read_ahead_kib
    )
    task_status.started()


def tune(mountpoint: Path, read_ahead_kib: int) -> None:
    """Raise the kernel's bounds for this mount, where that is permitted.

    With more read-ahead, sequential reads arrive in pieces of up to 1 MiB in place of 128 KiB.
    """
    mount = find_mount(mountpoint)
    if mount is None:
        return
    connection = Path("/sys/fs/fuse/connections") / mount.device.rpartition(":")[2]
    wanted = {
        connection / "max_background": MAX_BACKGROUND,
        connection / "congestion_threshold": MAX_BACKGROUND * 3 // 4,
    }
    if read_ahead_kib:
        wanted[Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb")] = read_ahead_kib
    for path, value in wanted.items():
        with contextlib.suppress(OSError):
            path.write_text(f"{value}\n")


def _raise_descriptor_limit() -> None:
    """Open files are objects in the cache, each a descriptor: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
