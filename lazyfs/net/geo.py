"""The Geo API of stratum 1 servers: which of the servers is nearest (upstream: section Geo API)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from lazyfs.net.escape import escape_path

MAX_ASKED = 3
"""Servers asked at most, one after the other."""


def geo_names(urls: Sequence[str]) -> list[str]:
    """Host names of the servers, sorted, so that proxies can share the reply."""
    return sorted({urlsplit(url).hostname or "" for url in urls})


def geo_path(proxy_name: str, names: Sequence[str]) -> str:
    """The request's path below a server's base URL."""
    return f"api/v1.0/geo/{escape_path(proxy_name)}/{','.join(names)}"


def parse_reply(body: bytes, count: int) -> list[int] | None:
    """The permutation of 0..count-1 in ``body``, nearest first; None if it is none."""
    try:
        numbers = [int(part) - 1 for part in body.decode("ascii").strip().split(",")]
    except ValueError:
        return None
    return numbers if sorted(numbers) == list(range(count)) else None


def order_urls(urls: Sequence[str], names: Sequence[str], nearest: Sequence[int]) -> list[int]:
    """Indices of ``urls`` by nearness of their host; equal hosts keep their order."""
    rank = {names[name]: place for place, name in enumerate(nearest)}
    return sorted(range(len(urls)), key=lambda i: rank[urlsplit(urls[i]).hostname or ""])
