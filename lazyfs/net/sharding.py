"""`HashRing`: consistent hashing of objects over the proxies of one group."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable

_POINTS = 16
"""Ring points of each proxy (upstream: network/sharding_policy.cc)."""

_OBJECT = re.compile(r"data/([0-9a-f]{2})/([0-9a-f]{6})")


def shard_key(path: str) -> int:
    """32 bits that place an object on a ring: the first of its digest, else of its path's hash."""
    if match := _OBJECT.match(path):
        return int(match[1] + match[2], 16)
    digest = hashlib.sha1(path.encode(errors="surrogateescape"), usedforsecurity=False)
    return int.from_bytes(digest.digest()[:4], "big")


class HashRing:
    """Which proxy holds a key; losing a proxy moves only the keys that it held."""

    def __init__(self, proxies: Iterable[str]) -> None:
        self._points = sorted(
            (shard_key(f"{index}:{proxy}"), proxy) for proxy in proxies for index in range(_POINTS)
        )

    def pick(self, key: int) -> str:
        """The proxy with the next point at or above ``key``."""
        index = bisect_left(self._points, (key, ""))
        return self._points[index % len(self._points)][1]
