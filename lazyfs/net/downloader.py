"""`Downloader`: brings objects from whichever server and proxy works. The transport of lazyfs."""

from __future__ import annotations

import logging
import platform
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from lazyfs.cas.store import SMALL_LIMIT, Receiver
from lazyfs.config.settings import NetworkSettings
from lazyfs.errors import ConfigError, LazyfsError, NetworkError
from lazyfs.net import geo
from lazyfs.net.document import Document
from lazyfs.net.escape import escape_path, redact
from lazyfs.net.failure import Failure, FailureClass, Step, pause
from lazyfs.net.geo import GeoQuestion
from lazyfs.net.proxies import DIRECT, ProxyStatus
from lazyfs.net.routes import Route, Routes
from lazyfs.net.session import HttpSession
from lazyfs.net.status import NetworkCounters, NetworkStatus
from lazyfs.net.transfer import Request, attempt
from lazyfs.net.verdict import Verdict
from lazyfs.net.watchdog import Watchdog

log = logging.getLogger("lazyfs.net")

USER_AGENT = f"lazyfs/0.1 (Python {platform.python_version()})"


@dataclass(frozen=True, slots=True)
class _Job:
    """What one fetch wants."""

    path: str
    byte_range: tuple[int, int] | None
    name: str
    """For log lines."""
    no_cache: bool
    size_limit: int | None
    deadline: float


class Downloader:
    """Fetches from a list of servers through groups of proxies. Safe to use from many threads.

    Every fetch ends. ``settings.deadline`` seconds after it was asked for, all that has not begun
    to deliver a body is given up: waiting for a free connection, connecting, headers, pauses. A
    body that flows may go on, but is given up when it falls below the low-speed limit for one
    timeout (found at the latest after two), and a document has to be whole by the deadline, give or
    take one timeout. Resolving a name is left to the system's resolver and
    its own bounds. While everything is down, each fetch tries every server once and does not
    pause, so that readers get their error early and the first fetch after the end of the outage
    succeeds.

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
        self._settings = settings
        self._clock = clock
        self._rng = rng or random.Random()
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(settings.connections)
        self._counters = NetworkCounters()
        self._routes = Routes(settings, clock=clock, rng=self._rng)
        self._watchdog = Watchdog()
        self._session = HttpSession(
            connections=settings.connections,
            user_agent=USER_AGENT,
            system_ca=settings.system_ca,
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
        deadline = self._clock() + self._settings.deadline
        self._run(_Job(path, byte_range, label or path, False, None, deadline), receiver)

    def fetch_document(
        self, path: str, *, limit: int = SMALL_LIMIT, no_cache: bool = False
    ) -> bytes:
        """The document at ``path``, which is not addressed by content.

        Raises:
            FormatError: it is longer than ``limit`` bytes.
            ObjectMissing, NetworkError: as `fetch`.
        """
        receiver = Document(path, limit)
        deadline = self._clock() + self._settings.deadline
        self._run(_Job(path, None, path, no_cache, limit, deadline), receiver)
        return receiver.getvalue()

    def _run(self, job: _Job, receiver: Receiver) -> None:
        trip = self._routes.trip(job.path, job.name)
        verdict = Verdict(job.path)
        while True:
            request = self._request(job, trip.route, no_cache=job.no_cache or trip.past_caches)
            try:
                self._attempt(request, receiver, job.deadline)
            except Failure as failure:
                verdict.add(trip.route.host, request.url, failure)
                step = trip.decide(failure)
                late = self._clock() >= job.deadline
                if step is Step.GIVE_UP or late or self._closed.is_set():
                    raise self._give_up(job, verdict, late=late) from failure
                if step is Step.REPEAT:
                    self._back_off(trip.retries, job.deadline)
                trip.go(step, failure)
            else:
                self._routes.outage = False
                return

    def _request(self, job: _Job, route: Route, *, no_cache: bool) -> Request:
        settings = self._settings
        proxy = route.effective_proxy
        return Request(
            f"{route.host}/{escape_path(job.path)}",
            proxy,
            job.byte_range,
            no_cache,
            settings.timeout_direct if proxy == DIRECT else settings.timeout,
            settings.low_speed_limit,
            settings.follow_redirects,
            size_limit=job.size_limit,
        )

    def _attempt(self, request: Request, receiver: Receiver, deadline: float) -> None:
        if not self._slots.acquire(timeout=max(0.0, deadline - self._clock())):
            raise Failure(FailureClass.HOST_SLOW, "all connections were busy")
        try:
            if self._closed.is_set():
                raise Failure(FailureClass.HOST_CONNECTION, "the downloader is closed")
            start = self._clock()
            if start >= deadline:
                raise Failure(FailureClass.HOST_SLOW, "no time was left")
            patient = replace(request, patience=deadline - start)
            received = attempt(self._session, self._watchdog, patient, receiver)
        except Failure:
            self._count(requests=1, failures=1)
            raise
        finally:
            self._slots.release()
        self._count(requests=1, bytes_received=received, seconds=self._clock() - start)

    def _back_off(self, repetition: int, deadline: float) -> None:
        settings = self._settings
        wait = pause(repetition, settings.backoff_init, settings.backoff_max, self._rng)
        self._sleep(min(wait, max(0.0, deadline - self._clock())))

    def _give_up(self, job: _Job, verdict: Verdict, *, late: bool) -> LazyfsError:
        if self._closed.is_set():
            return NetworkError("the transfer was ended: the downloader is closed", object=job.path)
        error = verdict.error(late=late)
        self._routes.outage = isinstance(error, NetworkError)
        return error

    def _count(self, **more: float) -> None:
        with self._lock:
            now = self._counters
            self._counters = replace(
                now, **{name: getattr(now, name) + value for name, value in more.items()}
            )

    # --- looking after it ------------------------------------------------------------------

    def status(self) -> NetworkStatus:
        """A snapshot; never waits for the network."""
        hosts, proxies = self._routes.status()
        with self._lock:
            counters = replace(
                self._counters,
                host_switches=self._routes.host_switches,
                proxy_switches=self._routes.proxy_switches,
            )
        settings = self._settings
        return NetworkStatus(hosts, proxies, settings.timeout, settings.timeout_direct, counters)

    def switch_host(self) -> None:
        """Go to the next server."""
        self._routes.switch_host()

    def set_hosts(self, urls: Sequence[str]) -> None:
        """Use other servers from now on.

        Raises:
            ConfigError: there is none, or one is no URL.
        """
        self._routes.set_hosts(urls)

    def probe_hosts(self) -> None:
        """Measure every server twice and put the fastest first."""
        hosts, _ = self._routes.status()
        self._routes.probed({host.url: self._probe(host.url) for host in hosts})

    def _probe(self, url: str) -> float | None:
        times = []
        for _ in range(2):
            start = self._clock()
            try:
                self._ask(url, ".cvmfspublished")
            except Failure:
                return None
            times.append(self._clock() - start)
        return min(times)

    def _ask(self, host: str, path: str) -> bytes:
        """A document from just this server, in one attempt.

        Raises:
            Failure: it did not work.
        """
        route = Route(host, self._routes.status()[1].current)
        deadline = self._clock() + self._settings.deadline
        receiver = Document(path, SMALL_LIMIT)
        job = _Job(path, None, path, False, SMALL_LIMIT, deadline)
        self._attempt(self._request(job, route, no_cache=False), receiver, deadline)
        return receiver.getvalue()

    def geo_sort(self) -> bool:
        """Order servers and fallback proxies by what the Geo API says.

        Returns:
            False if there was nothing to order, or no server gave a valid answer.
        """
        hosts, proxies = self._routes.status()
        urls = tuple(host.url for host in hosts)
        regular = proxies.first_fallback_group
        question = GeoQuestion(urls, proxies.groups[regular:], by_proxies=regular == 0)
        if not question.worthwhile:
            return False
        path = question.path(self._geo_origin(proxies))
        for url in self._rng.sample(urls, min(len(urls), geo.MAX_ASKED)):
            try:
                nearest = geo.parse_reply(self._ask(url, path), len(question.names()))
            except Failure as failure:
                log.info("no geographic order from %s: %s", redact(url), failure)
                continue
            if nearest is not None:
                self._routes.geo_sorted(*question.apply(nearest), proxies)
                return True
            log.info("no geographic order from %s: the answer is no permutation", redact(url))
        return False

    def _geo_origin(self, proxies: ProxyStatus) -> str:
        if self._settings.proxy_template:
            return self._settings.proxy_template
        regular = proxies.current_group < proxies.first_fallback_group
        host = urlsplit(proxies.current).hostname if regular else None
        # A name that nobody can resolve stands for the address that the request comes from.
        return host or str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def set_proxies(self, spec: str, fallback: str = "") -> None:
        """Use other proxies from now on.

        Raises:
            ConfigError: the specification has no usable proxy.
        """
        self._routes.set_proxies(spec, fallback)

    def switch_proxy_group(self) -> None:
        """Go to the next proxy group."""
        self._routes.switch_proxy_group()

    def rebalance_proxies(self) -> None:
        """Choose again within the current proxy group."""
        self._routes.rebalance_proxies()

    def set_timeouts(self, proxy: float, direct: float) -> None:
        """Set both timeouts, in seconds.

        Raises:
            ConfigError: one of them is not positive.
        """
        if proxy <= 0 or direct <= 0:
            raise ConfigError("timeouts must be positive")
        self._settings = replace(self._settings, timeout=proxy, timeout_direct=direct)
