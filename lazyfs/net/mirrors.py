"""Servers in order of preference: fail over to the next, come back to the first after a while."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from lazyfs.errors import ConfigError

SCHEMES = frozenset({"http", "https", "file"})


def check_server(url: str) -> str:
    """The base URL without trailing slashes.

    Raises:
        ConfigError: it is not an ``http://``, ``https://`` or ``file://`` URL.
    """
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in SCHEMES and bool(parts.hostname or parts.scheme == "file")
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"not a server: {url!r}", hint="use http://, https:// or file:// URLs")
    return url


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One server as it stands."""

    url: str
    active: bool
    state: str
    """``unprobed``, ``down``, ``geographically ordered`` or ``probed``."""
    rtt_ms: float | None = None


class MirrorChain:
    """Which server is next. The caller holds a lock; nothing here waits.

    Args:
        urls: Base URLs, first choice first.
        reset_after: Seconds after leaving the first until it is tried again; 0: never.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, urls: Iterable[str], *, reset_after: float, clock: Callable[[], float]
    ) -> None:
        self._reset_after = reset_after
        self._clock = clock
        self._left_at: float | None = None
        self._index = 0
        self._urls: tuple[str, ...] = ()
        self._probes: dict[str, float | None] = {}
        self._geo_sorted = False
        self.replace(urls)

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def urls(self) -> tuple[str, ...]:
        """All servers, first choice first."""
        return self._urls

    @property
    def current(self) -> str:
        """The server in use."""
        left = self._left_at
        if left is not None and self._reset_after and self._clock() - left >= self._reset_after:
            self._left_at = None
            self._index = 0
        return self._urls[self._index]

    def replace(self, urls: Iterable[str]) -> None:
        """Other servers, beginning with the first.

        Raises:
            ConfigError: there is none, or one is not a URL that can be used.
        """
        checked = tuple(dict.fromkeys(check_server(url) for url in urls))
        if not checked:
            raise ConfigError("no server is configured", hint="set CVMFS_SERVER_URL or --server")
        self._urls = checked
        self._index = 0
        self._left_at = None
        self._probes = {}
        self._geo_sorted = False

    def switch_from(self, failed: str, tried: Collection[str] = ()) -> str:
        """The server to use after ``failed``; switches once, however many transfers say so.

        Args:
            failed: What did not work.
            tried: Servers that the asking transfer has behind it.
        """
        if failed == self._urls[self._index]:
            self._index = (self._index + 1) % len(self._urls)
            self._left_at = self._clock() if self._index else None
        order = self._urls[self._index :] + self._urls[: self._index]
        return next((url for url in order if url not in tried), order[0])

    def sort_by_probe(self, seconds: dict[str, float | None]) -> None:
        """Fastest first; what gave None is down and comes last."""
        order = {url: index for index, url in enumerate(self._urls)}

        def rank(url: str) -> tuple[bool, float, int]:
            took = seconds.get(url)
            return took is None, took or 0.0, order[url]

        self.replace(sorted(self._urls, key=rank))
        self._probes = dict(seconds)

    def sort_by_geo(self, order: Iterable[str]) -> None:
        """Use these servers, nearest first."""
        self.replace(order)
        self._geo_sorted = True

    def status(self) -> tuple[HostStatus, ...]:
        """A snapshot."""
        current = self.current
        return tuple(self._host_status(url, url == current) for url in self._urls)

    def _host_status(self, url: str, active: bool) -> HostStatus:
        if url in self._probes:
            took = self._probes[url]
            state = "down" if took is None else "probed"
            return HostStatus(url, active, state, None if took is None else took * 1000)
        return HostStatus(url, active, "geographically ordered" if self._geo_sorted else "unprobed")
