"""Answers of control commands as text, in the spirit of ``cvmfs_talk``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lazyfs.cli.output import human_bytes


def as_text(command: Sequence[str], answer: Any) -> Iterator[str]:
    """The lines to print for ``answer``, which came as JSON values."""
    special = _SPECIAL.get(command[0]) if command else None
    if command[0] == "cache":
        special = _CACHE.get(command[1] if len(command) > 1 else "size")
    yield from special(answer) if special else _plain(answer)


def _plain(value: Any, indent: str = "") -> Iterator[str]:
    if value is True:
        yield f"{indent}OK"
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                yield f"{indent}{name}:"
                yield from _plain(inner, indent + "  ")
            else:
                yield f"{indent}{name}: {'' if inner is None else inner}"
    elif isinstance(value, list):
        for inner in value:
            yield from _plain(inner, indent)
    else:
        yield f"{indent}{value}"


def _hosts(hosts: Any) -> Iterator[str]:
    for number, host in enumerate(hosts):
        rtt = host["rtt_ms"]
        state = host["state"] if rtt is None else f"{rtt:.0f} ms"
        yield f"  [{number}] {host['url']} ({state})"
    for number, host in enumerate(hosts):
        if host["active"]:
            yield f"Active host {number}: {host['url']}"


def _proxies(status: Any) -> Iterator[str]:
    yield "Load-balance groups:"
    for number, group in enumerate(status["groups"]):
        yield f"[{number}] {', '.join(group)}"
    yield f"Active proxy: [{status['current_group']}] {status['current']}"
    if status["first_fallback_group"] < len(status["groups"]):
        yield f"First fallback group: [{status['first_fallback_group']}]"


def _timeouts(status: Any) -> Iterator[str]:
    yield f"Timeout with proxy: {status['proxy']:g}s"
    yield f"Timeout without proxy: {status['direct']:g}s"


def _max_ttl(minutes: Any) -> Iterator[str]:
    yield f"{minutes} minutes" if minutes else "unset"


def _catalogs(mountpoints: Any) -> Iterator[str]:
    """A tree: each catalog below the nearest one that holds it."""
    above: list[str] = []
    for path in sorted(mountpoints):
        while above and not path.startswith(above[-1].rstrip("/") + "/"):
            above.pop()
        yield f"{'    ' * len(above)}-> {path}"
        above.append(path)


def _parameters(parameters: Any) -> Iterator[str]:
    for name, fact in parameters.items():
        yield f"{name}={fact['value']}    # from {fact['from']}"


def _cache_size(usage: Any) -> Iterator[str]:
    def both(size: int) -> str:
        return f"{human_bytes(size)} ({size} Bytes)"

    yield f"Current cache size is {both(usage['used'])}, pinned: {both(usage['pinned'])}"
    limit = usage["limit"]
    yield f"Limit: {'none' if limit is None else both(limit)}"


def _limit(megabytes: Any) -> Iterator[str]:
    yield "unlimited" if megabytes is None else str(megabytes)


def _freed(size: Any) -> Iterator[str]:
    yield f"freed {human_bytes(size)}"


def _objects(count: Any) -> Iterator[str]:
    yield f"OK, {count} objects"


_Renderer = Callable[[Any], Iterator[str]]

_SPECIAL: dict[str, _Renderer] = {
    "hosts": _hosts,
    "external-hosts": _hosts,
    "proxies": _proxies,
    "external-proxies": _proxies,
    "timeouts": _timeouts,
    "max-ttl": _max_ttl,
    "open-catalogs": _catalogs,
    "parameters": _parameters,
}

_CACHE: dict[str, _Renderer] = {
    "size": _cache_size,
    "limit": _limit,
    "cleanup": _freed,
    "evict": _objects,
    "pin": _objects,
    "unpin": _objects,
}
