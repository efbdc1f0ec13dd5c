"""Proxy groups: balance within a group, fail over between groups, come back after a while."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from lazyfs.errors import ConfigError
from lazyfs.net.sharding import HashRing, shard_key

DIRECT = "DIRECT"
"""The word for "no proxy"; only in capitals."""

AUTO = "auto"
"""Stands for what the environment names; the discovery through WPAD is not implemented."""

Groups = tuple[tuple[str, ...], ...]


def parse_groups(
    spec: str, fallback: str = "", *, environ: Mapping[str, str] = os.environ
) -> tuple[Groups, int]:
    """The groups that ``spec`` and ``fallback`` write down.

    Args:
        spec: ``;`` between groups, ``|`` between members of one, ``DIRECT``, ``auto``.
        fallback: Groups after those; while there are any, ``DIRECT`` counts in neither.
        environ: Where ``http_proxy`` is looked up for ``auto``.

    Returns:
        All groups, and how many of them are regular ones.

    Raises:
        ConfigError: nothing is left, or an entry is no proxy URL.
    """
    regular = _split(spec, environ)
    backup = _without_direct(_split(fallback, environ))
    if backup:
        regular = _without_direct(regular)
    if not regular and not backup:
        raise ConfigError(
            f"no proxy in {spec!r}", hint="set CVMFS_HTTP_PROXY, DIRECT for no proxy at all"
        )
    return regular + backup, len(regular)


def _split(spec: str, environ: Mapping[str, str]) -> Groups:
    groups = []
    for part in spec.split(";"):
        names = [raw.strip() for raw in part.split("|")]
        # What is to be discovered but cannot be is left out: it must not turn into "no proxy".
        names = [environ.get("http_proxy", "") if name == AUTO else name for name in names]
        members = tuple(dict.fromkeys(_normal(name) for name in names if name))
        if members:
            groups.append(members)
    return tuple(groups)


def _normal(member: str) -> str:
    if member == DIRECT:
        return DIRECT
    url = member if "://" in member else f"http://{member}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"not a proxy: {member!r}", hint="write http://HOST:PORT or DIRECT")
    return url.rstrip("/")


def _without_direct(groups: Groups) -> Groups:
    kept = (tuple(m for m in group if m != DIRECT) for group in groups)
    return tuple(group for group in kept if group)


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """The proxies as they stand."""

    groups: Groups
    current: str
    current_group: int
    first_fallback_group: int


class ProxyChain:
    """Which proxy is next. The caller holds a lock; nothing here waits.

    Args:
        groups: As `parse_groups` gives them.
        regular: How many of them are not fallback groups.
        reset_after: Seconds after leaving the first group until it is tried again; 0: never.
        clock: Seconds, monotonic.
        rng: Chooses within a group.
        shard: Let the object decide which member of the group it is fetched through.
    """

    def __init__(
        self,
        groups: Groups,
        regular: int,
        *,
        reset_after: float,
        clock: Callable[[], float],
        rng: random.Random,
        shard: bool = False,
    ) -> None:
        self._groups = groups
        self._regular = regular
        self._reset_after = reset_after
        self._clock = clock
        self._rng = rng
        self._shard = shard
        self._left_at: float | None = None
        self._group = 0
        self._burned: set[str] = set()
        self._current = DIRECT
        self.rebalance()

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups)

    @property
    def current(self) -> str:
        """The proxy in use: a URL or ``DIRECT``."""
        left = self._left_at
        if left is not None and self._reset_after and self._clock() - left >= self._reset_after:
            self.reset()
        return self._current

    def reset(self) -> None:
        """Back to the first group, all of it unburned."""
        self._left_at = None
        self._group = 0
        self.rebalance()

    def rebalance(self) -> None:
        """Another choice within the current group, all of it unburned."""
        self._burned.clear()
        self._current = self._rng.choice(self._groups[self._group])

    def pick(self, path: str) -> str:
        """The proxy to fetch ``path`` through."""
        current = self.current
        return HashRing(self._usable()).pick(shard_key(path)) if self._shard else current

    def switch_from(self, failed: str, tried: Collection[str] = (), *, path: str = "") -> str:
        """The proxy to use after ``failed``; switches once, however many transfers say so.

        Args:
            failed: What did not work; it is set aside within its group.
            tried: Proxies that the asking transfer has behind it.
            path: What is fetched.
        """
        left = [member for member in self._usable() if member != failed]
        if not left:
            self.next_group()
        elif failed in self._usable():
            self._burned.add(failed)
            self._left_at = self._clock() if self._left_at is None else self._left_at
            if failed == self._current:
                self._current = self._rng.choice(left)
        choice = self.pick(path)
        if choice not in tried:
            return choice
        later = self._groups[self._group :] + self._groups[: self._group]
        others = (*self._usable(), *(member for group in later for member in group))
        return next((member for member in others if member not in tried), choice)

    def _usable(self) -> tuple[str, ...]:
        return tuple(m for m in self._groups[self._group] if m not in self._burned)

    def next_group(self) -> None:
        """Go to the next group, after the last to the first."""
        self._group = (self._group + 1) % len(self._groups)
        self._left_at = self._clock() if self._group else None
        self.rebalance()

    def status(self) -> ProxyStatus:
        """A snapshot."""
        return ProxyStatus(self._groups, self.current, self._group, self._regular)
