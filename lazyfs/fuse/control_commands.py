"""What the control socket can be asked: `cvmfs_talk`'s uses, in groups."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import trio

import lazyfs
from lazyfs.config.parameters import Value
from lazyfs.errors import ControlError
from lazyfs.fuse.control_cache import CacheCommands
from lazyfs.fuse.control_network import NetworkCommands
from lazyfs.fuse.control_values import Json, no_more, number
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.stacks import dump_stacks

STATUS_SECONDS = 0.5
"""How long a status waits for the cache's index, which may be on a disk that hangs."""

Command = Callable[[list[str]], Awaitable[Json]]


class Commands:
    """The commands of one mount.

    Args:
        filesystem: The mount.
        mountpoint: Where it is mounted.
        parameters: What its settings were made from.
    """

    def __init__(
        self, filesystem: Filesystem, mountpoint: Path, parameters: Mapping[str, Value]
    ) -> None:
        self._filesystem = filesystem
        self._mountpoint = mountpoint
        self._parameters_known = parameters
        network = NetworkCommands(filesystem)
        self._commands: Mapping[str, Command] = {
            "status": self._status,
            "remount": self._remount,
            "revision": self._fact(lambda: filesystem.revision.number),
            "pid": self._fact(os.getpid),
            "version": self._fact(lambda: lazyfs.__version__),
            "mountpoint": self._fact(lambda: str(mountpoint)),
            "cache": CacheCommands(filesystem).run,
            "hosts": network.hosts,
            "proxies": network.proxies,
            "timeouts": network.timeouts,
            "external-hosts": network.external_hosts,
            "external-proxies": network.external_proxies,
            "max-ttl": self._max_ttl,
            "open-catalogs": self._fact(self._open_catalogs),
            "detach-catalogs": self._detach_catalogs,
            "parameters": self._fact(self._parameters),
            "counters": self._fact(self._counters),
            "reset-error-counters": self._fact(self._reset_errors),
            "log": self._fact(lambda: list(filesystem.log_buffer.lines())),
            "stacks": self._fact(dump_stacks),
        }

    async def run(self, words: list[str]) -> Json:
        """Do what ``words`` ask for.

        Raises:
            ControlError: there is no such command, or its arguments are wrong.
            LazyfsError: it failed.
        """
        command = self._commands.get(words[0]) if words else None
        if command is None:
            known = ", ".join(self._commands)
            raise ControlError(f"unknown command {' '.join(words)!r}", hint=f"known: {known}")
        return await command(words[1:])

    def _fact(self, tell: Callable[[], Json]) -> Command:
        """A command without arguments that answers at once."""

        async def command(words: list[str]) -> Json:
            no_more(words)
            return tell()

        return command

    # --- the mount -------------------------------------------------------------------------

    async def _status(self, words: list[str]) -> Json:
        no_more(words)
        usage = None
        with trio.move_on_after(STATUS_SECONDS):
            usage = (await self._filesystem.usage()).cache
        return {
            **self._identity(),
            **self._revision_facts(),
            **self._network_facts(),
            "cache_used": usage.used if usage else None,
            "cache_limit": usage.limit if usage else None,
            "cache_directory": str(self._filesystem.repository.cache.directory),
            **self._activity(),
        }

    def _identity(self) -> dict[str, Json]:
        return {
            "fqrn": self._filesystem.repository.fqrn,
            "mountpoint": str(self._mountpoint),
            "pid": os.getpid(),
            "version": lazyfs.__version__,
            "uptime": int(time.time() - self._filesystem.statistics.started),
        }

    def _revision_facts(self) -> dict[str, Json]:
        revision = self._filesystem.revision
        return {
            "revision": revision.number,
            "root_hash": str(revision.root_hash),
            "tag": revision.tag,
            "published": revision.timestamp,
            "expires_in": self._filesystem.expires_in(),
        }

    def _network_facts(self) -> dict[str, Json]:
        network = self._filesystem.repository.downloader.status()
        return {
            "host": network.host,
            "proxy": network.proxies.current,
            "bytes_received": network.counters.bytes_received,
            "requests": network.counters.requests,
            "failures": network.counters.failures,
        }

    def _activity(self) -> dict[str, Json]:
        statistics = self._filesystem.statistics
        return {
            "open_files": statistics.open_files,
            "open_catalogs": len(self._filesystem.revision.open_catalogs()),
            "nodes": len(self._filesystem.nodes),
            "io_errors": statistics.errors,
            "memory": _resident_bytes(),
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        }

    async def _remount(self, words: list[str]) -> Json:
        no_more(words)
        return str(await self._filesystem.remount())

    async def _max_ttl(self, words: list[str]) -> Json:
        follower = self._filesystem.follower
        match words:
            case [] | ["get"]:
                pass
            case ["set", minutes]:
                follower.set_max_ttl(number(minutes) * 60)
            case _:
                raise ControlError("unknown max-ttl command", hint="get, set MINUTES")
        return follower.max_ttl // 60

    def _open_catalogs(self) -> Json:
        catalogs = self._filesystem.revision.open_catalogs()
        return [path.decode(errors="backslashreplace") or "/" for path in catalogs]

    async def _detach_catalogs(self, words: list[str]) -> Json:
        no_more(words)
        await self._filesystem.detach_nested()
        return True

    def _parameters(self) -> Json:
        return {
            name: {"value": value.text, "from": value.origin}
            for name, value in sorted(self._parameters_known.items())
        }

    def _counters(self) -> Json:
        repository = self._filesystem.repository
        return {
            "mount": asdict(self._filesystem.statistics),
            "store": asdict(repository.store.counters),
            "network": asdict(repository.downloader.status().counters),
        }

    def _reset_errors(self) -> Json:
        self._filesystem.statistics.errors = 0
        self._filesystem.statistics.last_error = 0
        return True


def _resident_bytes() -> int:
    """Memory of this process, from the kernel."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
