"""`Routes`: servers and proxies that all fetches share, and the `Trip` of one fetch over them."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lazyfs.config.settings import NetworkSettings
from lazyfs.net.escape import redact
from lazyfs.net.failure import Failure, Plan, Step
from lazyfs.net.mirrors import HostStatus, MirrorChain
from lazyfs.net.proxies import DIRECT, Groups, ProxyChain, ProxyStatus, parse_groups

log = logging.getLogger("lazyfs.net")


@dataclass(frozen=True, slots=True)
class Route:
    """Whom an attempt asks, and through whom."""

    host: str
    proxy: str

    @property
    def effective_proxy(self) -> str:
        """The proxy that really is used: local folders need none."""
        return DIRECT if self.host.startswith("file://") else self.proxy


class Routes:
    """Servers, proxies, and whether anything works at all. Safe to use from many threads.

    Nothing here waits. A lock is held for each decision, never while something is transferred.

    Args:
        settings: Servers, proxies, and when to return to the first choice.
        clock: Seconds, monotonic.
        rng: Balances proxies.
    """

    def __init__(
        self, settings: NetworkSettings, *, clock: Callable[[], float], rng: random.Random
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self.lock = threading.Lock()
        self.mirrors = MirrorChain(
            settings.servers, reset_after=settings.host_reset_after, clock=clock
        )
        if settings.max_servers and not settings.use_geoapi:
            self.mirrors.replace(self.mirrors.urls[: settings.max_servers])
        self.proxies = self._chain(*parse_groups(settings.proxies, settings.fallback_proxies))
        self.outage = False
        """Whether the last fetch that ended found nobody who answers."""
        self.host_switches = 0
        self.proxy_switches = 0

    def _chain(self, groups: Groups, regular: int) -> ProxyChain:
        return ProxyChain(
            groups,
            regular,
            reset_after=self._settings.proxy_reset_after,
            clock=self._clock,
            rng=self._rng,
            shard=self._settings.proxy_shard,
        )

    def trip(self, path: str, name: str) -> Trip:
        """The way of a new fetch, beginning with what is current."""
        return Trip(self, path, name, 0 if self.outage else self._settings.max_retries)

    def status(self) -> tuple[tuple[HostStatus, ...], ProxyStatus]:
        """A snapshot of both chains."""
        with self.lock:
            return self.mirrors.status(), self.proxies.status()

    def switch_host(self) -> None:
        """Go to the next server."""
        with self.lock:
            self.mirrors.switch_from(self.mirrors.current)

    def set_hosts(self, urls: Iterable[str]) -> None:
        """Use other servers, see `MirrorChain.replace`."""
        with self.lock:
            self.mirrors.replace(urls)

    def probed(self, seconds: dict[str, float | None]) -> None:
        """Put the servers in the order of a measurement."""
        with self.lock:
            self.mirrors.sort_by_probe(seconds)

    def geo_sorted(self, urls: tuple[str, ...], fallback: Groups, before: ProxyStatus) -> None:
        """Put servers and fallback groups in the order of a Geo reply, and keep the nearest."""
        regular = before.first_fallback_group
        with self.lock:
            self.mirrors.sort_by_geo(urls[: self._settings.max_servers or None])
            if len(fallback) > 1:
                self.proxies = self._chain(before.groups[:regular] + fallback, regular)

    def set_proxies(self, spec: str, fallback: str) -> None:
        """Use other proxies, see `parse_groups`."""
        chain = self._chain(*parse_groups(spec, fallback))
        with self.lock:
            self.proxies = chain

    def switch_proxy_group(self) -> None:
        """Go to the next proxy group."""
        with self.lock:
            self.proxies.next_group()

    def rebalance_proxies(self) -> None:
        """Choose again within the current proxy group."""
        with self.lock:
            self.proxies.rebalance()


class Trip:
    """The way of one fetch over servers and proxies; belongs to one thread.

    Args:
        routes: What all fetches share.
        path: What is fetched.
        name: For log lines.
        retries: Repetitions of one URL.
    """

    def __init__(self, routes: Routes, path: str, name: str, retries: int) -> None:
        self._routes = routes
        self._path = path
        self._name = name
        with routes.lock:
            self._plan = Plan(len(routes.mirrors), len(routes.proxies), retries)
            self.route = Route(routes.mirrors.current, routes.proxies.pick(path))
        self._tried_hosts = {self.route.host}
        self._tried_proxies = {self.route.proxy}

    @property
    def past_caches(self) -> bool:
        """Whether caches have to be asked for a fresh copy now."""
        return self._plan.past_caches

    @property
    def retries(self) -> int:
        """Repetitions of the current URL so far."""
        return self._plan.retries

    def decide(self, failure: Failure) -> Step:
        """What to do after a failure."""
        return self._plan.next_step(failure.kind)

    def go(self, step: Step, failure: Failure) -> None:
        """Set `route` for the next attempt; switches for all others too if they use the same."""
        if step is Step.NEXT_HOST:
            self._next_host(failure)
        elif step is Step.NEXT_PROXY:
            self._next_proxy(failure)
        elif step is Step.REPEAT_NO_CACHE:
            host = redact(self.route.host)
            log.warning("repeating past caches at %s: %s (%s)", host, failure, self._name)

    def _next_host(self, failure: Failure) -> None:
        routes, old = self._routes, self.route.host
        with routes.lock:
            before = routes.mirrors.current
            host = routes.mirrors.switch_from(old, self._tried_hosts)
            switched = routes.mirrors.current != before
            routes.host_switches += switched
            if failure.kind.of_proxy:
                routes.proxies.reset()
            proxy = routes.proxies.pick(self._path)
        self._tried_hosts.add(host)
        self._tried_proxies = {proxy}
        self.route = Route(host, proxy)
        self._say(switched, "server", old, host, failure)

    def _next_proxy(self, failure: Failure) -> None:
        routes, old = self._routes, self.route.proxy
        with routes.lock:
            before = routes.proxies.current
            proxy = routes.proxies.switch_from(old, self._tried_proxies, path=self._path)
            switched = routes.proxies.current != before
            routes.proxy_switches += switched
        self._tried_proxies.add(proxy)
        self.route = Route(self.route.host, proxy)
        self._say(switched, "proxy", old, proxy, failure)

    def _say(self, switched: bool, what: str, old: str, new: str, failure: Failure) -> None:
        # One line per fail-over: not for each transfer that meets it, nor round after round
        # while everything is down.
        level = logging.WARNING if switched and not self._routes.outage else logging.DEBUG
        names = (what, redact(old), redact(new), failure, self._name)
        log.log(level, "switching %s from %s to %s: %s (%s)", *names)
