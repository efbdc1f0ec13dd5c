"""`Downloader`: brings objects from whichever server and proxy works. The transport of lazyfs."""

from __future__ import annotations

import logging
import platform
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import requests

from lazyfs.cas.store import SMALL_LIMIT, Receiver
from lazyfs.cas.verify import MemorySink
from lazyfs.config.settings import NetworkSettings
from lazyfs.errors import (
    AllMirrorsFailed,
    ConfigError,
    FormatError,
    LazyfsError,
    NetworkError,
    ObjectMissing,
    Timeout,
)
from lazyfs.net import geo
from lazyfs.net.escape import escape_path
from lazyfs.net.failure import Failure, FailureClass, Plan, Step, pause
from lazyfs.net.mirrors import HostStatus, MirrorChain
from lazyfs.net.proxies import DIRECT, ProxyChain, ProxyStatus, parse_groups
from lazyfs.net.session import make_session
from lazyfs.net.transfer import Request, attempt
from lazyfs.net.watchdog import Watchdog

log = logging.getLogger("lazyfs.net")

USER_AGENT = f"lazyfs/0.1 (Python {platform.python_version()})"


@dataclass(frozen=True, slots=True)
class NetworkCounters:
    """What a downloader has done."""

    requests: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    """Time spent in transfers that succeeded, summed over threads."""
    failures: int = 0
    """Attempts that failed."""
    host_switches: int = 0
    proxy_switches: int = 0


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """Servers, proxies, timeouts and counters as they stand."""

    hosts: tuple[HostStatus, ...]
    proxies: ProxyStatus
    timeout: float
    timeout_direct: float
    counters: NetworkCounters

    @property
    def host(self) -> str:
        """The active server."""
        return next(host.url for host in self.hosts if host.active)


class Downloader:
    """Fetches from a list of servers through groups of proxies. Safe to use from many threads.

    Every fetch ends: no new attempt begins later than ``settings.deadline`` seconds after it was
    asked for, connecting and headers of one attempt take at most three timeouts, and a body is
    given up when it falls below the low-speed limit for one timeout.

    Args:
        settings: Servers, proxies, timeouts.
        clock: Seconds, monotonic.
        rng: Balances proxies and jitters pauses.
        sleep: Waits between repetitions; None: an interruptible wait that `close` ends.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        if not settings.servers:
            raise ConfigError("no server is configured", hint="set CVMFS_SERVER_URL or --server")
        self._settings = settings
        self._clock = clock
        self._rng = rng or random.Random()
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(settings.connections)
        self._counters = NetworkCounters()
        self._mirrors = MirrorChain(
            settings.servers, reset_after=settings.host_reset_after, clock=clock
        )
        self._proxies = self._make_proxies(settings.proxies, settings.fallback_proxies)
        self._watchdog = Watchdog()
        self._session: requests.Session = make_session(
            connections=settings.connections,
            user_agent=USER_AGENT,
            system_ca=settings.system_ca,
        )

    def _make_proxies(self, spec: str, fallback: str) -> ProxyChain:
        groups, regular = parse_groups(spec, fallback)
        return ProxyChain(
            groups,
            regular,
            reset_after=self._settings.proxy_reset_after,
            clock=self._clock,
            rng=self._rng,
        )

    def close(self) -> None:
        """End running fetches with an error and close all connections."""
        self._closed.set()
        self._watchdog.fire_all()
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- fetching --------------------------------------------------------------------------

    def fetch(
        self,
        path: str,
        receiver: Receiver,
        *,
        byte_range: tuple[int, int] | None = None,
        label: str = "",
    ) -> None:
        """Deliver the object at ``path`` below a server's base URL into ``receiver``.

        Raises:
            ObjectMissing: every server says that it does not have it.
            VerificationError, FormatError: what the servers have is not the object.
            Timeout: the servers did not answer in time.
            AllMirrorsFailed: the servers failed otherwise.
            CacheError: the receiver's side failed.
        """
        self._fetch(path, receiver, byte_range=byte_range, label=label, no_cache=False)

    def fetch_document(
        self, path: str, *, limit: int = SMALL_LIMIT, no_cache: bool = False
    ) -> bytes:
        """The document at ``path``, which is not addressed by content.

        Raises:
            FormatError: it is longer than ``limit`` bytes.
            ObjectMissing, NetworkError: as `fetch`.
        """
        receiver = _Document(path, limit)
        self._fetch(path, receiver, byte_range=None, label=path, no_cache=no_cache)
        return receiver.getvalue()

    def _fetch(
        self,
        path: str,
        receiver: Receiver,
        *,
        byte_range: tuple[int, int] | None,
        label: str,
        no_cache: bool,
    ) -> None:
        deadline = self._clock() + self._settings.deadline
        name = label or path
        with self._lock:
            plan = Plan(len(self._mirrors), len(self._proxies), self._settings.max_retries)
            host, proxy = self._mirrors.current, self._proxies.current
        plan.no_cache = no_cache
        failures: list[Failure] = []
        while True:
            url = f"{host}/{escape_path(path)}"
            request = self._request(url, proxy, byte_range, no_cache=plan.no_cache)
            try:
                self._attempt(request, receiver, deadline)
            except Failure as failure:
                failures.append(failure)
                step = plan.next_step(failure.kind)
                if step is Step.GIVE_UP or self._closed.is_set() or self._clock() >= deadline:
                    raise self._final_error(path, url, failures) from failure
                host, proxy = self._prepare(step, name, host, proxy, failure, plan, deadline)
            else:
                return

    def _request(
        self, url: str, proxy: str, byte_range: tuple[int, int] | None, *, no_cache: bool
    ) -> Request:
        settings = self._settings
        return Request(
            url,
            proxy,
            byte_range,
            no_cache,
            settings.timeout_direct if proxy == DIRECT else settings.timeout,
            settings.low_speed_limit,
            settings.follow_redirects,
        )

    def _attempt(self, request: Request, receiver: Receiver, deadline: float) -> None:
        if self._closed.is_set():
            raise Failure(FailureClass.HOST_CONNECTION, "the downloader is closed")
        if not self._slots.acquire(timeout=max(0.0, deadline - self._clock())):
            raise Failure(FailureClass.HOST_SLOW, "all connections were busy")
        start = self._clock()
        try:
            received = attempt(self._session, self._watchdog, request, receiver)
        except Failure:
            self._count(requests=1, failures=1)
            raise
        finally:
            self._slots.release()
        self._count(requests=1, bytes_received=received, seconds=self._clock() - start)

    def _prepare(
        self,
        step: Step,
        name: str,
        host: str,
        proxy: str,
        failure: Failure,
        plan: Plan,
        deadline: float,
    ) -> tuple[str, str]:
        """Do what comes before the next attempt; the server and proxy to use for it."""
        if step is Step.REPEAT:
            settings = self._settings
            wait = pause(plan.retries, settings.backoff_init, settings.backoff_max, self._rng)
            self._sleep(min(wait, max(0.0, deadline - self._clock())))
        elif step is Step.NEXT_HOST:
            with self._lock:
                new = self._mirrors.switch_from(host)
                if failure.kind.of_proxy:
                    self._proxies.reset()
                    proxy = self._proxies.current
            self._count(host_switches=1)
            log.warning("switching server from %s to %s: %s (%s)", host, new, failure, name)
            return new, proxy
        elif step is Step.NEXT_PROXY:
            with self._lock:
                new = self._proxies.switch_from(proxy)
            self._count(proxy_switches=1)
            log.warning("switching proxy from %s to %s: %s (%s)", proxy, new, failure, name)
            return host, new
        elif step is Step.REPEAT_NO_CACHE:
            log.warning("repeating past caches: %s (%s)", failure, name)
        return host, proxy

    def _final_error(self, path: str, url: str, failures: list[Failure]) -> LazyfsError:
        if self._closed.is_set():
            return NetworkError("the transfer was ended", object=path, url=url)
        for failure in reversed(failures):
            if isinstance(failure.cause, LazyfsError):
                return failure.cause
        if all(failure.status == 404 for failure in failures):
            return ObjectMissing("no server has it", object=path, url=url)
        reasons = "; ".join(dict.fromkeys(str(failure) for failure in failures))
        slow = (FailureClass.HOST_SLOW, FailureClass.PROXY_SLOW)
        kind = Timeout if all(f.kind in slow for f in failures) else AllMirrorsFailed
        return kind(f"cannot fetch: {reasons}", object=path, url=url)

    def _count(self, **more: float) -> None:
        with self._lock:
            now = self._counters
            self._counters = replace(
                now, **{name: getattr(now, name) + value for name, value in more.items()}
            )

    # --- looking after it ------------------------------------------------------------------

    def status(self) -> NetworkStatus:
        """A snapshot; never waits for the network."""
        with self._lock:
            return NetworkStatus(
                self._mirrors.status(),
                self._proxies.status(),
                self._settings.timeout,
                self._settings.timeout_direct,
                self._counters,
            )

    def switch_host(self) -> None:
        """Go to the next server."""
        with self._lock:
            self._mirrors.switch_from(self._mirrors.current)

    def set_hosts(self, urls: list[str]) -> None:
        """Use other servers from now on.

        Raises:
            ConfigError: there is none.
        """
        if not urls:
            raise ConfigError("no server is given", hint="give URLs separated by ';'")
        with self._lock:
            self._mirrors.replace(urls)

    def probe_hosts(self) -> None:
        """Measure every server twice and put the fastest first."""
        urls = self._mirrors.urls
        measured: dict[str, float | None] = {url: self._probe(url) for url in urls}
        with self._lock:
            self._mirrors.sort_by_probe(measured)

    def _probe(self, url: str) -> float | None:
        times = []
        with self._lock:
            proxy = self._proxies.current
        for _ in range(2):
            start = self._clock()
            request = self._request(f"{url}/.cvmfspublished", proxy, None, no_cache=False)
            try:
                attempt(self._session, self._watchdog, request, _Document("probe", SMALL_LIMIT))
            except Failure:
                return None
            times.append(self._clock() - start)
        return min(times)

    def geo_sort(self) -> bool:
        """Order the servers by what the Geo API says; False if no server gave a valid answer."""
        urls = self._mirrors.urls
        names = geo.geo_names(urls)
        if len(names) < 2:
            return False
        with self._lock:
            proxy = self._proxies.current
        proxy_host = "" if proxy == DIRECT else urlsplit(proxy).hostname
        path = geo.geo_path(self._settings.proxy_template or proxy_host or "direct", names)
        for url in self._rng.sample(list(urls), min(len(urls), geo.MAX_ASKED)):
            receiver = _Document(path, SMALL_LIMIT)
            request = self._request(f"{url}/{path}", proxy, None, no_cache=False)
            try:
                attempt(self._session, self._watchdog, request, receiver)
            except Failure as failure:
                log.info("no geographic order from %s: %s", url, failure)
                continue
            nearest = geo.parse_reply(receiver.getvalue(), len(names))
            if nearest is not None:
                self._apply_order(geo.order_urls(urls, names, nearest))
                return True
        return False

    def _apply_order(self, order: list[int]) -> None:
        kept = order[: self._settings.max_servers] if self._settings.max_servers else order
        with self._lock:
            self._mirrors.sort_by_geo(kept)

    def set_proxies(self, spec: str, fallback: str = "") -> None:
        """Use other proxies from now on.

        Raises:
            ConfigError: the specification has no usable proxy.
        """
        chain = self._make_proxies(spec, fallback)
        with self._lock:
            self._proxies = chain

    def switch_proxy_group(self) -> None:
        """Go to the next proxy group."""
        with self._lock:
            self._proxies.next_group()

    def rebalance_proxies(self) -> None:
        """Choose again within the current proxy group."""
        with self._lock:
            self._proxies.rebalance()

    def set_timeouts(self, proxy: float, direct: float) -> None:
        """Set both timeouts, in seconds.

        Raises:
            ConfigError: one of them is not positive.
        """
        if proxy <= 0 or direct <= 0:
            raise ConfigError("timeouts must be positive")
        self._settings = replace(self._settings, timeout=proxy, timeout_direct=direct)


class _Document(MemorySink):
    """A receiver for a small document that no digest names."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__()
        self._name = name
        self._limit = limit
        self._left = limit

    def restart(self) -> None:
        super().restart()
        self._left = self._limit

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise FormatError(f"longer than {self._limit} bytes", object=self._name)
        super().write(data)

    def finish(self) -> None:
        return
