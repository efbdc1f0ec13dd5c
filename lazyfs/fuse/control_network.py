"""Control commands about servers, proxies and timeouts."""

from __future__ import annotations

from dataclasses import asdict

import trio

from lazyfs.errors import ControlError
from lazyfs.fuse.blocking import run_blocking
from lazyfs.fuse.control_values import Json, no_more, seconds
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.net.downloader import Downloader

PROBING_THREADS = 2
"""Commands that ask servers, in parallel."""


class NetworkCommands:
    """``hosts …``, ``proxies …``, ``timeouts …`` and their external twins.

    Args:
        filesystem: The mount.
    """

    def __init__(self, filesystem: Filesystem) -> None:
        self._repository = filesystem.repository
        self._probing = trio.CapacityLimiter(PROBING_THREADS)

    @property
    def _external(self) -> Downloader:
        if self._repository.external_downloader is None:
            raise ControlError("the mount has no servers for external files")
        return self._repository.external_downloader

    async def hosts(self, words: list[str]) -> Json:
        """The servers, after doing what ``words`` ask for."""
        return await self._hosts(self._repository.downloader, words)

    async def external_hosts(self, words: list[str]) -> Json:
        """The same for external files."""
        return await self._hosts(self._external, words)

    async def _hosts(self, downloader: Downloader, words: list[str]) -> Json:
        match words:
            case [] | ["info"]:
                pass
            case ["switch"]:
                downloader.switch_host()
            case ["probe"]:
                await run_blocking(self._probing, downloader.probe_hosts)
            case ["geo"]:
                if not await run_blocking(self._probing, downloader.geo_sort):
                    raise ControlError("no server gave a geographic order")
            case ["set", urls]:
                downloader.set_hosts([url for url in urls.split(";") if url])
            case _:
                raise ControlError(
                    "unknown hosts command", hint="info, switch, probe, geo, set 'URL;URL'"
                )
        return [dict(asdict(host)) for host in downloader.status().hosts]

    async def proxies(self, words: list[str]) -> Json:
        """The proxies, after doing what ``words`` ask for."""
        return self._proxies(self._repository.downloader, words)

    async def external_proxies(self, words: list[str]) -> Json:
        """The same for external files."""
        return self._proxies(self._external, words)

    def _proxies(self, downloader: Downloader, words: list[str]) -> Json:
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

    async def timeouts(self, words: list[str]) -> Json:
        """The timeouts in seconds, after doing what ``words`` ask for."""
        downloader = self._repository.downloader
        match words:
            case ["set", proxy, direct]:
                downloader.set_timeouts(seconds(proxy), seconds(direct))
            case ["info", *more]:
                no_more(more)
            case []:
                pass
            case _:
                raise ControlError("unknown timeouts command", hint="info, set PROXY DIRECT")
        status = downloader.status()
        return {"proxy": status.timeout, "direct": status.timeout_direct}
