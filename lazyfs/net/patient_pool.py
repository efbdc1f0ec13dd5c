"""`PatientPool`: HTTP requests that are repeated while a server is busy or away, within bounds."""

from __future__ import annotations

import contextlib
import http.client
import io
import random
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from lazyfs.errors import NetworkError, Timeout
from lazyfs.net.connection import POOLS
from lazyfs.net.escape import redact
from lazyfs.net.failure import pause
from lazyfs.net.watchdog import Watch, Watchdog

PIECE = 1 << 17
"""Bytes read at a time."""

ANSWER_LIMIT = 32 << 20
"""Most bytes of an answer that is read into memory; a page of a listing has some hundred kB."""

CONNECTIONS = 64
"""Connections that stay open for use again: more than there are threads that upload."""

BUSY = frozenset({429, 500, 502, 503, 504})
"""Statuses after which the same request may work a moment later."""

_CODE = re.compile(rb"<Code>(\w{1,64})</Code>")
_BUSY_CODES = frozenset({"RequestTimeout"})
"""How S3 says, with status 400, that a body came too slowly."""

_BROKEN = (HTTPError, http.client.HTTPException, OSError)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and how often to try."""

    attempts: int = 6
    """For each request that may be repeated."""
    connect: float = 10.0
    """Seconds to connect, and to send each piece of a body."""
    answer: float = 60.0
    """Seconds for an answer to begin, and for each piece of it."""
    lowest_rate: float = 20_000.0
    """Bytes a second; slower bodies are given up."""
    first_pause: float = 0.5
    longest_pause: float = 10.0

    def pause(self, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt``."""
        return pause(attempt, self.first_pause, self.longest_pause, random.Random())

    def seconds(self, size: int) -> float:
        """For a whole request with a body of ``size`` bytes."""
        return self.connect + self.answer + size / self.lowest_rate


class PatientPool(urllib3.PoolManager):
    """Repeats what failed for reasons that pass. Safe to use from many threads.

    A request with ``If-Match`` or ``If-None-Match`` is sent once: whether it may be sent again
    depends on what became of the first. Redirects are not followed: a signature is good for one
    host.

    Args:
        patience: How long to wait, and how often to try.
        ca: Certificates to verify TLS peers with; None: the system's.
        insecure: Do not verify TLS peers.
        sleep: Waits.
    """

    def __init__(
        self,
        patience: Patience,
        *,
        ca: Path | None = None,
        insecure: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(
            maxsize=CONNECTIONS,
            blocksize=PIECE,
            cert_reqs="CERT_NONE" if insecure else "CERT_REQUIRED",
            ca_certs=str(ca) if ca is not None else None,
        )
        self.pool_classes_by_scheme = POOLS
        self.patience = patience
        self._sleep = sleep
        self._watchdog = Watchdog()
        self._local = threading.local()

    def urlopen(  # type: ignore[override]  # as urllib3's own class differs from its base
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> urllib3.BaseHTTPResponse:
        """The answer, if it is not that the server is busy.

        Raises:
            NetworkError: nobody answered, or the server was busy each time.
            Timeout: not within the bounds.
        """
        once = self._stream_watch() is not None or _is_conditional(kw.get("headers"))
        for attempt in range(1, 1 if once else self.patience.attempts):
            with contextlib.suppress(NetworkError):
                return self._once(method, url, **kw)
            self._sleep(self.patience.pause(attempt))
        return self._once(method, url, **kw)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[Stream]:
        """Within it, this thread may ask, once, for an answer with ``preload_content=False``."""
        with self._watchdog.watch(self.patience.seconds(0)) as watch:
            self._local.watch = watch
            try:
                yield Stream(watch, self.patience)
            finally:
                self._local.watch = None

    def _once(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        preload_content: bool = True,
        **kw: Any,
    ) -> urllib3.BaseHTTPResponse:
        patience = self.patience
        # From a file, a body is sent in pieces, each with a timeout of its own.
        content = io.BytesIO(body) if body else body
        with self._bounded(patience.seconds(len(body or b""))) as watch:
            try:
                response = super().urlopen(
                    method,
                    url,
                    redirect=False,
                    retries=False,
                    body=content,
                    preload_content=False,
                    timeout=urllib3.Timeout(connect=patience.connect, read=patience.answer),
                    **kw,
                )
                if preload_content or response.status >= 300:
                    response = _loaded(response, method)
            except _BROKEN as exc:
                raise _failure(exc, watch, url) from exc
        if watch.fired:
            # A connection that is cut looks like the end of the headers.
            response.close()
            raise Timeout("no answer in time", url=_place(url))
        _check_busy(response, url)
        return response

    def _stream_watch(self) -> Watch | None:
        watch: Watch | None = getattr(self._local, "watch", None)
        return watch

    @contextlib.contextmanager
    def _bounded(self, seconds: float) -> Iterator[Watch]:
        watch = self._stream_watch()
        if watch is not None:
            watch.extend(seconds)
            yield watch
            return
        with self._watchdog.watch(seconds) as watch:
            yield watch


@dataclass(frozen=True, slots=True)
class Stream:
    """Reads the body of one answer within bounds."""

    watch: Watch
    patience: Patience

    def pieces(self, response: urllib3.BaseHTTPResponse) -> Generator[bytes, None, None]:
        """The body; the caller closes the response.

        Raises:
            NetworkError: it is cut short.
            Timeout: it comes too slowly.
        """
        while True:
            self.watch.extend(self.patience.answer + PIECE / self.patience.lowest_rate)
            try:
                piece = response.read(PIECE, decode_content=False)
            except _BROKEN as exc:
                raise _failure(exc, self.watch, response.url or "") from exc
            if self.watch.fired:
                raise Timeout("the transfer stalled", url=_place(response.url or ""))
            if not piece:
                return
            with self.watch.pause():
                yield piece


def _is_conditional(headers: Mapping[str, str] | None) -> bool:
    return any(name.lower() in ("if-match", "if-none-match") for name in headers or ())


def _check_busy(response: urllib3.BaseHTTPResponse, url: str) -> None:
    if response.status < 300:
        return
    code = _CODE.search(response.data)
    name = code.group(1).decode() if code is not None else ""
    if response.status in BUSY or name in _BUSY_CODES:
        reason = f"the server answers HTTP {response.status} {name}".rstrip()
        raise NetworkError(reason, url=_place(url))


def _loaded(response: urllib3.BaseHTTPResponse, method: str) -> urllib3.BaseHTTPResponse:
    """The same answer, its body in memory."""
    content = io.BytesIO()
    try:
        while piece := response.read(PIECE, decode_content=False):
            content.write(piece)
            if content.tell() > ANSWER_LIMIT:
                raise HTTPError(f"the answer has more than {ANSWER_LIMIT} bytes")
    except BaseException:
        response.close()
        raise
    content.seek(0)
    return urllib3.HTTPResponse(
        content,
        response.headers,
        response.status,
        reason=response.reason,
        decode_content=False,
        request_method=method,
    )


def _failure(exc: Exception, watch: Watch, url: str) -> NetworkError:
    url = _place(url)
    inner: BaseException = exc
    while inner.__cause__ is not None or inner.__context__ is not None:
        inner = inner.__cause__ or inner.__context__ or inner
    if watch.fired or isinstance(inner, TimeoutError):
        return Timeout("no answer in time", url=url)
    reason = inner.strerror if isinstance(inner, OSError) else None
    return NetworkError(reason or str(inner)[:200], url=url)


def _place(url: str) -> str:
    """Without what may be a signature or a password."""
    return redact(url).partition("?")[0]
