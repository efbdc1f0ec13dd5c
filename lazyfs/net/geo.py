"""The Geo API of stratum 1 servers: which servers and fallback proxies are nearest. No I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_ASKED = 3
"""Servers asked at most, one after the other."""

SEPARATOR = "+PXYSEP+"
"""Tells the API to sort servers by their distance from the nearest of the proxies behind it; takes
a number of its own in the reply."""


@dataclass(frozen=True, slots=True)
class GeoQuestion:
    """What is to be put in order.

    Args:
        servers: Base URLs.
        fallback: The fallback proxy groups.
        by_proxies: Whether there are no other proxies than those.
    """

    servers: tuple[str, ...]
    fallback: tuple[tuple[str, ...], ...] = ()
    by_proxies: bool = False

    @property
    def worthwhile(self) -> bool:
        """Whether an answer could change any order."""
        return len(set(self._server_names())) > 1 or len(self.fallback) > 1

    def names(self) -> list[str]:
        """The names in the request: servers sorted, so that proxies can share the reply."""
        servers = sorted(set(self._server_names()))
        separator = [SEPARATOR] if self._separated() else []
        return servers + separator + [_host(group[0]) for group in self.fallback]

    def path(self, origin: str) -> str:
        """The request's path below a server's base URL, unescaped.

        Args:
            origin: Who asks: the name of a proxy; anything that does not resolve stands for the
                address that the request comes from.
        """
        return f"api/v1.0/geo/{origin}/{','.join(self.names())}"

    def apply(self, nearest: Sequence[int]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Servers and fallback groups in the order of a reply; equal hosts keep their order."""
        names = self.names()
        servers = len(set(self._server_names()))
        rank = {names[name]: place for place, name in enumerate(nearest) if name < servers}
        first_group = servers + self._separated()
        groups = [name - first_group for name in nearest if name >= first_group]
        return (
            tuple(sorted(self.servers, key=lambda url: rank[_host(url)])),
            tuple(self.fallback[index] for index in groups),
        )

    def _separated(self) -> bool:
        return self.by_proxies and bool(self.fallback) and len(set(self._server_names())) > 1

    def _server_names(self) -> list[str]:
        return [_host(url) for url in self.servers]


def parse_reply(body: bytes, count: int) -> list[int] | None:
    """The permutation of 0..count-1 in ``body``, nearest first; None if it is none."""
    parts = body.decode("latin-1").strip().split(",")
    if len(parts) != count or not all(p.isascii() and p.isdigit() and len(p) < 9 for p in parts):
        return None
    numbers = [int(part) - 1 for part in parts]
    return numbers if sorted(numbers) == list(range(count)) else None


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
