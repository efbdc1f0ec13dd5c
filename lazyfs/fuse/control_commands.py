"""What the control socket can be asked: `cvmfs_talk`'s uses, in groups."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

import trio

import lazyfs
from lazyfs.cas.digest import ObjectKind
from lazyfs.errors import ControlError, PathNotFound
from lazyfs.fuse.blocking import run_blocking
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.net.downloader import Downloader

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

Command = Callable[[list[str]], Awaitable[Json]]


class Commands:
    """The commands of one mount.

    Args:
        filesystem: The mount.
        mountpoint: Where it is mounted.
    """

    def __init__(self, filesystem: Filesystem, mountpoint: Path) -> None:
        self._filesystem = filesystem
        self._mountpoint = mountpoint
        self._commands: dict[str, Command] = {
            "status": self._status,
            "remount": self._remount,
            "revision": self._revision,
            "pid": self._pid,
            "version": self._version,
            "mountpoint": self._where,
            "cache": self._cache,
            "hosts": self._hosts,
            "proxies": self._proxies,
            "timeouts": self._timeouts,
            "external-hosts": self._external_hosts,
            "catalogs": self._catalogs,
            "parameters": self._parameters,
            "counters": self._counters,
            "reset-errors": self._reset_errors,
            "log": self._log,
            "stacks": self._stacks,
        }

    async def run(self, words: list[str]) -> Json:
        """Do what ``words`` ask for.

        Raises:
            ControlError: there is no such command, or its arguments are wrong.
            LazyfsError: it failed.
        """
        command = self._commands.get(words[0]) if words else None
        if command is None:
            raise ControlError(
                f"unknown command {' '.join(words)!r}", hint=f"known: {', '.join(self._commands)}"
            )
        return await command(words[1:])

    async def _blocking(self, work: Callable[[], Json]) -> Json:
        return await run_blocking(self._filesystem.workers.control, work)

    # --- the mount -------------------------------------------------------------------------

    async def _status(self, words: list[str]) -> Json:
        filesystem = self._filesystem
        usage = await filesystem.usage()
        network = filesystem.repository.downloader.status()
        statistics = filesystem.statistics
        return {
            "fqrn": filesystem.repository.fqrn,
            "mountpoint": str(self._mountpoint),
            "pid": os.getpid(),
            "version": lazyfs.__version__,
            "uptime": int(time.time() - statistics.started),
            "revision": filesystem.revision.number,
            "root_hash": str(filesystem.revision.root_hash),
            "tag": filesystem.revision.tag,
            "published": filesystem.revision.timestamp,
            "expires_in": filesystem.expires_in(),
            "host": network.host,
            "proxy": network.proxies.current,
            "bytes_received": network.counters.bytes_received,
            "requests": network.counters.requests,
            "failures": network.counters.failures,
            "cache_used": usage.cache.used,
            "cache_limit": usage.cache.limit,
            "cache_directory": str(filesystem.repository.cache.directory),
            "open_files": statistics.open_files,
            "open_catalogs": len(filesystem.revision.open_catalogs()),
            "nodes": len(filesystem.nodes),
            "io_errors": statistics.errors,
        }

    async def _remount(self, words: list[str]) -> Json:
        return str(await self._filesystem.remount())

    async def _revision(self, words: list[str]) -> Json:
        return self._filesystem.revision.number

    async def _pid(self, words: list[str]) -> Json:
        return os.getpid()

    async def _version(self, words: list[str]) -> Json:
        return lazyfs.__version__

    async def _where(self, words: list[str]) -> Json:
        return str(self._mountpoint)

    async def _counters(self, words: list[str]) -> Json:
        repository = self._filesystem.repository
        return {
            "mount": asdict(self._filesystem.statistics),
            "store": asdict(repository.store.counters),
            "network": asdict(repository.downloader.status().counters),
        }

    async def _reset_errors(self, words: list[str]) -> Json:
        self._filesystem.statistics.errors = 0
        self._filesystem.statistics.last_error = 0
        return True

    async def _log(self, words: list[str]) -> Json:
        return list(self._filesystem.log_buffer.lines())

    async def _parameters(self, words: list[str]) -> Json:
        settings = self._filesystem.repository.settings
        return {name: _plain(value) for name, value in asdict(settings).items()}

    async def _stacks(self, words: list[str]) -> Json:
        return thread_stacks()

    # --- cache and catalogs ----------------------------------------------------------------

    async def _cache(self, words: list[str]) -> Json:
        cache = self._filesystem.repository.cache
        match words:
            case [] | ["size"]:
                return await self._blocking(lambda: dict(asdict(cache.usage())))
            case ["list"] | ["list", "pinned" | "catalogs"]:
                return await self._blocking(lambda: self._cache_list(words[1:]))
            case ["limit", text]:
                limit = None if text == "-1" else _number(text) << 20
                await self._blocking(lambda: cache.set_limit(limit))
                return True
            case ["cleanup", text]:
                target = _number(text) << 20
                return await self._blocking(lambda: cache.shrink(target))
            case ["evict" | "pin" | "unpin" as verb, path]:
                return await self._blocking(lambda: self._of_path(verb, path))
        raise ControlError(
            "unknown cache command",
            hint="size, list [pinned|catalogs], limit MB, cleanup MB, evict|pin|unpin PATH",
        )

    def _cache_list(self, words: list[str]) -> Json:
        entries = self._filesystem.repository.cache.entries()
        if words == ["pinned"]:
            return [entry.label for entry in entries if entry.pinned]
        if words == ["catalogs"]:
            return [entry.label for entry in entries if entry.kind == ObjectKind.CATALOG.value]
        return [entry.label for entry in entries]

    def _of_path(self, verb: str, path: str) -> Json:
        revision, repository = self._filesystem.revision, self._filesystem.repository
        node = revision.resolve(path)
        if not node.is_file:
            raise PathNotFound("no such regular file", path=node.path)
        keys = [extent.ref for extent in revision.extents(node)]
        if verb == "pin":
            for ref in keys:
                repository.store.open(ref).close()
        change = {
            "evict": repository.cache.evict,
            "pin": repository.cache.pin,
            "unpin": repository.cache.unpin,
        }[verb]
        changed = [change(ref.key) for ref in keys]
        return all(changed)

    async def _catalogs(self, words: list[str]) -> Json:
        if words == ["detach"]:
            await self._filesystem.detach_nested()
            return True
        return [
            path.decode(errors="backslashreplace") or "/"
            for path in self._filesystem.revision.open_catalogs()
        ]

    # --- network ---------------------------------------------------------------------------

    async def _hosts(self, words: list[str]) -> Json:
        return await self._of_hosts(self._filesystem.repository.downloader, words)

    async def _external_hosts(self, words: list[str]) -> Json:
        external = self._filesystem.repository.external_downloader
        if external is None:
            raise ControlError("the mount has no external servers")
        return await self._of_hosts(external, words)

    async def _of_hosts(self, downloader: Downloader, words: list[str]) -> Json:
        network = self._filesystem.workers.network
        match words:
            case [] | ["info"]:
                pass
            case ["switch"]:
                downloader.switch_host()
            case ["probe"]:
                await run_blocking(network, downloader.probe_hosts)
            case ["geo"]:
                await run_blocking(network, downloader.geo_sort)
            case ["set", urls]:
                downloader.set_hosts([url for url in urls.split(";") if url])
            case _:
                raise ControlError(
                    "unknown hosts command", hint="info, switch, probe, geo, set URLS"
                )
        return [dict(asdict(host)) for host in downloader.status().hosts]

    async def _proxies(self, words: list[str]) -> Json:
        downloader = self._filesystem.repository.downloader
        match words:
            case [] | ["info"]:
                pass
            case ["switch"]:
                downloader.switch_proxy_group()
            case ["rebalance"]:
                downloader.rebalance_proxies()
            case ["set", spec]:
                downloader.set_proxies(spec)
            case ["set", spec, fallback]:
                downloader.set_proxies(spec, fallback)
            case _:
                raise ControlError(
                    "unknown proxies command", hint="info, switch, rebalance, set SPEC [FALLBACK]"
                )
        status = downloader.status().proxies
        return {
            "groups": [list(group) for group in status.groups],
            "current": status.current,
            "current_group": status.current_group,
            "first_fallback_group": status.first_fallback_group,
        }

    async def _timeouts(self, words: list[str]) -> Json:
        downloader = self._filesystem.repository.downloader
        match words:
            case [] | ["info"]:
                pass
            case ["set", proxy, direct]:
                downloader.set_timeouts(_number(proxy), _number(direct))
            case _:
                raise ControlError("unknown timeouts command", hint="info, set PROXY DIRECT")
        status = downloader.status()
        return {"proxy": status.timeout, "direct": status.timeout_direct}


def thread_stacks() -> str:
    """What every thread and every trio task of this process is doing."""
    frames = sys._current_frames()
    parts = [
        f"thread {ident}:\n{''.join(traceback.format_stack(f))}" for ident, f in frames.items()
    ]
    root = trio.lowlevel.current_root_task()
    queue = [root] if root is not None else []
    while queue:
        task = queue.pop()
        stack = "".join(traceback.StackSummary.extract(iter(task.iter_await_frames())).format())
        parts.append(f"task {task.name}:\n{stack}")
        queue += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return "\n".join(parts)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ControlError(f"not a number: {text!r}")
    return int(text)


def _plain(value: object) -> Json:
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(getattr(value, "value", value))
