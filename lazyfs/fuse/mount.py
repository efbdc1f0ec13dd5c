"""The life of a mount: make it, keep it until it is asked to end, end it in bounded time."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

from lazyfs.config.parameters import Value
from lazyfs.config.settings import RepositorySettings
from lazyfs.errors import LazyfsError, MountError
from lazyfs.fuse.control import serve_control
from lazyfs.fuse.control_commands import Commands
from lazyfs.fuse.daemon import Outcome, Report
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.logs import LogTarget, set_up_logging
from lazyfs.fuse.mountinfo import find_mount
from lazyfs.fuse.registry import MountEntry, Registry, runtime_directory
from lazyfs.fuse.session import serve
from lazyfs.fuse.stacks import dump_stacks
from lazyfs.fuse.unmount import detach_own, locate, prepare_mountpoint
from lazyfs.repository.repository import Repository

log = logging.getLogger("lazyfs.fuse")

END_SECONDS = 15.0
"""A process that was asked to end, or whose mount is gone, is ended by force after so long. The
cache survives that at any instant; what hung is shown in the log first."""

NOTIFICATION_SECONDS = 2.0
"""How long an end waits for a notification that the kernel is still taking."""

COLLECT_AFTER = 200_000
"""New objects after which Python looks for reference cycles."""

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What to mount, where and how."""

    settings: RepositorySettings
    mountpoint: Path
    kernel_options: frozenset[str] = frozenset()
    """Beside those that the settings stand for."""
    log: LogTarget = field(default_factory=LogTarget)
    parameters: Mapping[str, Value] = field(default_factory=dict)
    """The parameters behind the settings, to be shown."""


def run_mount(request: MountRequest, report: Report) -> int:
    """Mount and serve until the mount ends; the exit code of the process.

    Args:
        request: What to mount.
        report: Told once the mount answers.

    Raises:
        LazyfsError: the mount could not be made.
    """
    set_up_logging(request.settings.fqrn, request.log)
    _tune_collector()
    mountpoint = locate(request.mountpoint)
    _refuse_own_cache(request, mountpoint)
    registry = Registry(runtime_directory())
    try:
        with contextlib.ExitStack() as making:
            making.enter_context(registry.making(mountpoint))
            prepare_mountpoint(mountpoint, registry)
            with Repository.from_settings(request.settings) as repository, _bounded_end():
                life = _Life(request, repository, mountpoint, registry)
                with _one_error():
                    trio.run(life.run, making, report)
    except LazyfsError:
        raise
    except BaseException:
        log.critical("the mount at %s ends, please report this", mountpoint, exc_info=True)
        raise
    log.info("unmounted %s", mountpoint)
    return 0


def _refuse_own_cache(request: MountRequest, mountpoint: Path) -> None:
    """Raise if the mount would hide its own cache or log."""
    for path in (request.settings.cache.directory, request.log.file):
        if path is not None and path.resolve().is_relative_to(mountpoint):
            raise MountError(
                "it would be hidden by the mount, which needs it",
                path=str(path),
                hint="choose a place outside of the mount point",
            )


def _tune_collector() -> None:
    """Have Python look for reference cycles less often, and never among what is there by now.

    A mount keeps many nodes and makes few cycles: by default each listing is searched for them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Nurseries wrap every error into groups; let the one that caused the others out."""
    try:
        yield
    except BaseExceptionGroup as group:
        own = group.subgroup(LazyfsError)
        cause: BaseException = own or group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if own is None and len(group.exceptions) > 1:
            raise
        raise cause from None


@contextlib.contextmanager
def _bounded_end() -> Iterator[None]:
    """Call the watchdog off at the very end; see `_expect_end`."""
    try:
        yield
    finally:
        _expect_end()


def _expect_end() -> None:
    """End the process by force if it has not ended in `END_SECONDS`, and show what hung."""
    faulthandler.dump_traceback_later(END_SECONDS, exit=True)


class _Life:
    """One mount from its making to its end."""

    def __init__(
        self,
        request: MountRequest,
        repository: Repository,
        mountpoint: Path,
        registry: Registry,
    ) -> None:
        self._request = request
        self._repository = repository
        self._mountpoint = mountpoint
        self._registry = registry
        self._filesystem = Filesystem(repository, request.settings.mount)

    async def run(self, making: contextlib.ExitStack, report: Report) -> None:
        """Serve until the mount ends. ``making`` is closed once the mount is there."""
        logger = logging.getLogger("lazyfs")
        socket_path = self._registry.new_socket_path()
        logger.addHandler(self._filesystem.log_buffer)
        try:
            async with trio.open_nursery() as nursery:
                with _signals() as signals:
                    await nursery.start(self._serve, nursery)
                    commands = Commands(
                        self._filesystem, self._mountpoint, self._request.parameters
                    )
                    await nursery.start(serve_control, commands, socket_path)
                    device = self._announce(socket_path)
                    making.close()
                    report(Outcome())
                    await _wait_for_the_end(signals)
                    _expect_end()
                    await self._let_go(device)
                    nursery.cancel_scope.cancel()
        finally:
            self._registry.remove(socket_path)
            logger.removeHandler(self._filesystem.log_buffer)

    async def _serve(self, nursery: trio.Nursery, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve the kernel; when the mount ends, so does all else."""
        options = kernel_options(self._request)
        await serve(self._filesystem, self._mountpoint, options, task_status=task_status)
        _expect_end()
        nursery.cancel_scope.cancel()

    def _announce(self, socket_path: Path) -> str:
        """Enter the mount into the registry; its device."""
        mount = find_mount(self._mountpoint)
        if mount is None:
            raise MountError("it was unmounted at once", path=str(self._mountpoint))
        self._registry.add(
            MountEntry(
                self._repository.fqrn,
                str(self._mountpoint),
                mount.device,
                os.getpid(),
                time.time(),
                str(socket_path),
            )
        )
        revision = self._filesystem.revision.number
        log.info("mounted %s at %s, revision %d", mount.source, self._mountpoint, revision)
        return mount.device

    async def _let_go(self, device: str) -> None:
        """Prepare the end of a mount that may be in use.

        Waiting for nobody, but for a notification on its way into the kernel: while the kernel
        holds that back because of a request that we are to answer, the process could not end.
        Without servers every request gets its answer.
        """
        await trio.to_thread.run_sync(detach_own, self._mountpoint, device)
        self._repository.downloader.close()
        if self._repository.external_downloader is not None:
            self._repository.external_downloader.close()
        with trio.move_on_after(NOTIFICATION_SECONDS):
            await self._filesystem.workers.kernel.acquire()


@contextlib.contextmanager
def _signals() -> Iterator[AsyncIterator[int]]:
    """The signals that a mount obeys."""
    with trio.open_signal_receiver(*ENDING_SIGNALS, signal.SIGUSR1) as signals:
        # Works even while the event loop does not; then goes on to the loop's own handler.
        faulthandler.register(signal.SIGUSR1, chain=True)
        try:
            yield signals
        finally:
            faulthandler.unregister(signal.SIGUSR1)


async def _wait_for_the_end(signals: AsyncIterator[int]) -> None:
    """Return when the process is asked to end; SIGUSR1 logs what everything is doing."""
    async for number in signals:
        if number != signal.SIGUSR1:
            log.info("%s: ending", signal.Signals(number).name)
            return
        log.info("what the process is doing:\n%s", dump_stacks())


def kernel_options(request: MountRequest) -> frozenset[str]:
    """The FUSE options of a mount."""
    settings = request.settings.mount
    options = {"subtype=lazyfs", "ro", *request.kernel_options}
    if not any(option.startswith("fsname=") for option in options):
        options.add(f"fsname={request.settings.fqrn}")
    if "dev" not in options:
        options.add("nodev")
    if settings.check_permissions:
        options.add("default_permissions")
    if settings.allow_other:
        options.add("allow_other")
    options.add("suid" if settings.suid else "nosuid")
    return frozenset(options)
