"""`Verdict`: what all the failed attempts of one fetch add up to."""

from __future__ import annotations

from lazyfs.errors import (
    AllMirrorsFailed,
    LazyfsError,
    ObjectMissing,
    Timeout,
)
from lazyfs.net.escape import redact
from lazyfs.net.failure import Failure

_HINT = "is the network up? `lazyfs ctl` shows servers and proxies"


class Verdict:
    """Collects failures; what a server said last is what counts for it.

    Args:
        path: What is fetched.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._last: dict[str, Failure] = {}
        self._url = ""

    def add(self, host: str, url: str, failure: Failure) -> None:
        """Note one failed attempt."""
        self._last.pop(host, None)
        self._last[host] = failure
        self._url = redact(url)

    def error(self, *, late: bool) -> LazyfsError:
        """The error to raise.

        Args:
            late: Whether it was the deadline that ended the fetch.
        """
        failures = list(self._last.values())
        if all(failure.status == 404 for failure in failures):
            return ObjectMissing("no server has it", object=self._path, url=self._url)
        bad = [failure.cause for failure in failures if failure.cause is not None]
        if len(bad) + sum(failure.status == 404 for failure in failures) == len(failures):
            return bad[-1]
        reasons = "; ".join(f"{redact(host)}: {failure}" for host, failure in self._last.items())
        slow = all(failure.kind.slow for failure in failures)
        kind = Timeout if late or slow else AllMirrorsFailed
        return kind(f"cannot fetch: {reasons}", object=self._path, url=self._url, hint=_HINT)
