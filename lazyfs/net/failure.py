"""What can go wrong in one attempt, and what follows from it. No I/O here."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from lazyfs.errors import FormatError, VerificationError


class FailureClass(enum.Enum):
    """Why an attempt failed; proxy and host are told apart because they are replaced apart."""

    BAD_DATA = "bad data"
    HOST_CONNECTION = "cannot connect to the server"
    HOST_SLOW = "server too slow"
    HOST_SHORT = "transfer cut short"
    HOST_HTTP = "server answered with an error"
    PROXY_CONNECTION = "cannot connect to the proxy"
    PROXY_SLOW = "proxy too slow"
    PROXY_SHORT = "transfer through the proxy cut short"
    PROXY_HTTP = "proxy answered with an error"

    @property
    def of_proxy(self) -> bool:
        """Whether the proxy is to blame."""
        return self.name.startswith("PROXY")

    @property
    def may_repeat(self) -> bool:
        """Whether the same URL may work a moment later."""
        return self.name.endswith(("CONNECTION", "SLOW", "SHORT"))

    @property
    def slow(self) -> bool:
        """Whether it took too long."""
        return self.name.endswith("SLOW")


class Step(enum.Enum):
    """What to do next."""

    REPEAT_NO_CACHE = "repeat past caches"
    REPEAT = "repeat after a pause"
    NEXT_HOST = "next server"
    NEXT_PROXY = "next proxy"
    GIVE_UP = "give up"


class Failure(Exception):
    """One failed attempt.

    Args:
        kind: What went wrong.
        reason: For people.
        status: The HTTP status, where one came.
        cause: What the receiver said about the bytes, for `FailureClass.BAD_DATA`.
    """

    def __init__(
        self,
        kind: FailureClass,
        reason: str,
        *,
        status: int | None = None,
        cause: FormatError | VerificationError | None = None,
    ) -> None:
        # A server's words may hold anything; a log line has to stay one line.
        self.reason = "".join(char if char.isprintable() else "?" for char in reason)
        super().__init__(f"{kind.value}: {self.reason}")
        self.kind = kind
        self.status = status
        self.cause = cause


@dataclass(slots=True)
class Plan:
    """The course of one fetch: how often what was tried. Upstream's order of decisions."""

    hosts: int
    proxies: int
    max_retries: int
    retries: int = 0
    hosts_used: int = 1
    proxies_used: int = 1
    past_caches: bool = False
    """Whether the last attempt was a repetition that asked caches for a fresh copy."""

    def next_step(self, kind: FailureClass) -> Step:
        """What to do after a failure; counts it."""
        if kind is FailureClass.BAD_DATA and not self.past_caches:
            self.past_caches = True
            return Step.REPEAT_NO_CACHE
        if kind.may_repeat and self.retries < self.max_retries and not self.past_caches:
            self.retries += 1
            return Step.REPEAT
        self.retries = 0
        self.past_caches = False
        if kind.of_proxy and self.proxies_used < self.proxies:
            self.proxies_used += 1
            return Step.NEXT_PROXY
        if self.hosts_used < self.hosts:
            self.hosts_used += 1
            self.proxies_used = 1
            return Step.NEXT_HOST
        return Step.GIVE_UP


def pause(attempt: int, first: float, longest: float, rng: random.Random) -> float:
    """Seconds to wait before repetition number ``attempt`` (from 1).

    The first pause is uniform in 0..first, later ones double it, up to ``longest``.
    """
    return min(longest, rng.uniform(0, first) * 2.0 ** (attempt - 1))
