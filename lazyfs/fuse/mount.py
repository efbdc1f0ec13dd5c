"""The life of a mount: make it, keep it, end it, repair what a killed one left."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from lazyfs.config.settings import RepositorySettings
from lazyfs.errors import LazyfsError, MountError, NotMounted
from lazyfs.fuse.control import serve_control
from lazyfs.fuse.control_commands import Commands, thread_stacks
from lazyfs.fuse.daemon import Outcome
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.logs import set_up_logging
from lazyfs.fuse.mountinfo import FILESYSTEM_TYPE, absolute, find_mount
from lazyfs.fuse.registry import MountEntry, Registry, runtime_directory
from lazyfs.fuse.session import serve
from lazyfs.repository.repository import Repository

log = logging.getLogger("lazyfs.fuse")

UMOUNT_SECONDS = 10.0
"""How long `unmount` waits for the mount process to end."""

Report = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What to mount, where and how."""

    settings: RepositorySettings
    mountpoint: Path
    kernel_options: frozenset[str] = frozenset()
    log_file: Path | None = None
    foreground: bool = False
    verbose: bool = False


def prepare_mountpoint(mountpoint: Path) -> None:
    """Make sure that something can be mounted there; a stale mount is taken away.

    Raises:
        MountError: it is no directory, or a live mount is there already.
    """
    mount = find_mount(mountpoint)
    if mount is not None and mount.kind == FILESYSTEM_TYPE:
        if not is_stale(mountpoint):
            raise MountError(
                f"{mount.source} is mounted there already",
                path=str(mountpoint),
                hint="unmount it with 'lazyfs umount' first",
            )
        log.warning("taking away the stale mount at %s", mountpoint)
        detach(mountpoint, lazy=True)
    try:
        is_directory = mountpoint.is_dir()
    except OSError as exc:
        raise MountError(f"cannot mount there: {exc.strerror}", path=str(mountpoint)) from exc
    if not is_directory:
        raise MountError("not a directory", path=str(mountpoint), hint="make it with mkdir")


def is_stale(mountpoint: Path) -> bool:
    """Whether the process behind a FUSE mount is gone.

    Only a request that the kernel passes on tells: it answers `stat` from its own cache.
    """
    try:
        os.statvfs(mountpoint)
    except OSError as exc:
        return exc.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def detach(mountpoint: Path, *, lazy: bool) -> None:
    """Unmount, as root or as the user who mounted.

    Raises:
        MountError: it is busy, or not permitted.
    """
    flags = ["-l"] if lazy else []
    if os.geteuid() == 0:
        command = ["umount", "-i", *flags, "--", str(mountpoint)]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(mountpoint)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise MountError(f"cannot unmount: {exc}", path=str(mountpoint)) from exc
    if done.returncode:
        raise MountError(
            f"cannot unmount: {done.stderr.strip()}",
            path=str(mountpoint),
            hint="end what uses it, or give --lazy",
        )


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """End a mount and wait until its process is gone.

    Raises:
        NotMounted: nothing of lazyfs is mounted there.
        MountError: it is busy.
    """
    where = absolute(mountpoint)
    mount = find_mount(where)
    if mount is None or mount.kind != FILESYSTEM_TYPE:
        raise NotMounted("no lazyfs mount is there", path=str(where), hint="see 'lazyfs mounts'")
    registry = Registry(runtime_directory())
    entry = next((e for e in registry.entries() if e.mountpoint == str(where)), None)
    detach(where, lazy=lazy)
    if entry is not None and not lazy:
        _wait_for_end(entry)


def _wait_for_end(entry: MountEntry) -> None:
    try:
        fd = os.pidfd_open(entry.pid)
    except OSError:
        return
    try:
        if not select.select([fd], [], [], UMOUNT_SECONDS)[0]:
            raise MountError(f"unmounted, but process {entry.pid} has not ended yet")
    finally:
        os.close(fd)


def run_mount(request: MountRequest, report: Report) -> int:
    """Mount and serve until the mount ends; the exit code.

    Args:
        request: What to mount.
        report: Told once, when the mount answers.

    Raises:
        LazyfsError: the mount could not be made.
    """
    set_up_logging(
        request.settings.fqrn,
        file=request.log_file,
        foreground=request.foreground,
        verbose=request.verbose,
    )
    mountpoint = absolute(request.mountpoint)
    with Repository.from_settings(request.settings) as repository:
        try:
            trio.run(_run, repository, request, mountpoint, report)
        except* LazyfsError as group:
            # Nurseries wrap what they raise; the user is told of the failure itself.
            raise _innermost(group) from None
    return 0


def _innermost(group: BaseExceptionGroup[LazyfsError]) -> LazyfsError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, LazyfsError)
    return found


async def _run(
    repository: Repository, request: MountRequest, mountpoint: Path, report: Report
) -> None:
    filesystem = Filesystem(repository, request.settings.mount)
    logging.getLogger("lazyfs").addHandler(filesystem.log_buffer)
    registry = Registry(runtime_directory())
    socket_path = registry.socket_path(mountpoint)
    try:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as got:
                await nursery.start(_serve, nursery, filesystem, request, mountpoint)
                commands = Commands(filesystem, mountpoint)
                await nursery.start(serve_control, commands, socket_path)
                registry.add(
                    MountEntry(
                        repository.fqrn,
                        str(mountpoint),
                        os.getpid(),
                        time.time(),
                        str(socket_path),
                    )
                )
                log.info("mounted %s at %s", repository.fqrn, mountpoint)
                report(Outcome())
                await _obey_signals(got)
                # Unmounting waits for nobody: fetches under way end with an error.
                repository.downloader.close()
                nursery.cancel_scope.cancel()
    finally:
        registry.remove(mountpoint)
        log.info("unmounted %s", mountpoint)


async def _serve(
    nursery: trio.Nursery,
    filesystem: Filesystem,
    request: MountRequest,
    mountpoint: Path,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Serve the kernel; when the mount ends, so does all else."""
    await serve(filesystem, mountpoint, kernel_options(request), task_status=task_status)
    nursery.cancel_scope.cancel()


async def _obey_signals(signals: AsyncIterator[int]) -> None:
    """Return when the process is asked to end; SIGUSR1 logs what everything is doing."""
    async for number in signals:
        if number != signal.SIGUSR1:
            return
        log.info("%s", thread_stacks())


def kernel_options(request: MountRequest) -> frozenset[str]:
    """The FUSE options of a mount."""
    settings = request.settings.mount
    options = {f"fsname={request.settings.fqrn}", "subtype=lazyfs", "ro", "nodev"}
    options |= request.kernel_options
    if settings.check_permissions:
        options.add("default_permissions")
    if settings.allow_other:
        options.add("allow_other")
    if not settings.suid:
        options.add("nosuid")
    return frozenset(options)
