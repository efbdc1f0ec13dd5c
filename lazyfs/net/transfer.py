"""One attempt to bring one object from one server through one proxy."""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import re
import stat
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3

from lazyfs.cas.store import Receiver
from lazyfs.errors import FormatError, VerificationError
from lazyfs.net.escape import redact
from lazyfs.net.failure import Failure, FailureClass
from lazyfs.net.proxies import DIRECT
from lazyfs.net.session import HttpSession
from lazyfs.net.watchdog import Watch, Watchdog

PIECE = 1 << 17
"""Bytes read at a time."""

MAX_REDIRECTS = 4
"""As upstream follows, if redirects are allowed at all."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_LENGTH = re.compile(r"[0-9]{1,18}")
_NO_CACHE = {"Pragma": "no-cache", "Cache-Control": "no-cache"}
_BAD = (FormatError, VerificationError)
_BROKEN = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Request:
    """What one attempt asks for."""

    url: str
    proxy: str = DIRECT
    byte_range: tuple[int, int] | None = None
    no_cache: bool = False
    timeout: float = 5.0
    """Seconds to connect, to wait for a byte, and of low speed."""
    low_speed_limit: int = 1024
    """Bytes per second, measured over ``timeout`` seconds."""
    follow_redirects: bool = False
    patience: float = math.inf
    """Seconds until the body must have begun, whatever ``timeout`` says."""
    size_limit: int | None = None
    """Most bytes that may be declared, for a document, which has to end within ``patience`` too;
    None: the receiver alone decides."""

    @property
    def through_proxy(self) -> bool:
        """Whether somebody stands between us and the server."""
        return self.proxy != DIRECT

    @property
    def headers(self) -> dict[str, str]:
        """Headers beside the session's own."""
        headers = dict(_NO_CACHE) if self.no_cache else {}
        if self.byte_range is not None:
            first, length = self.byte_range
            headers["Range"] = f"bytes={first}-{first + length - 1}"
        return headers


def attempt(session: HttpSession, watchdog: Watchdog, request: Request, receiver: Receiver) -> int:
    """Deliver one object into ``receiver``; the bytes received.

    Connecting and the headers take at most three timeouts together, redirects included; the body
    ends when fewer than ``low_speed_limit`` bytes a second came over one timeout. The time that
    the receiver takes for itself does not count.

    Raises:
        Failure: it did not work; its kind says what may.
        CacheError: the receiver's side failed.
    """
    receiver.restart()
    try:
        if request.url.startswith("file://"):
            received = _copy(_read_file(request), receiver)
        else:
            with watchdog.watch(min(3 * request.timeout, request.patience)) as watch:
                received = _copy(_download(session, request, watch), receiver)
        receiver.finish()
    except _BAD as exc:
        exc.url = exc.url or request.url
        raise Failure(FailureClass.BAD_DATA, exc.message, cause=exc) from exc
    return received


def _copy(pieces: Generator[bytes, None, None], receiver: Receiver) -> int:
    received = 0
    # Closed here and now: the traceback of what the receiver raises would keep it open.
    with contextlib.closing(pieces):
        for piece in pieces:
            received += len(piece)
            receiver.write(piece)
    return received


def _read_file(request: Request) -> Generator[bytes, None, None]:
    path = unquote(urlsplit(request.url).path, errors="surrogateescape")
    first, left = request.byte_range or (0, None)
    try:
        # Without waiting: what lies there may be a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Failure(FailureClass.HOST_HTTP, "not a regular file")
            file.seek(first)
            while piece := file.read(PIECE if left is None else min(PIECE, left)):
                left = None if left is None else left - len(piece)
                yield piece
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise Failure(FailureClass.HOST_HTTP, "no such file", status=404) from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise Failure(FailureClass.HOST_CONNECTION, reason) from exc


def _download(session: HttpSession, request: Request, watch: Watch) -> Generator[bytes, None, None]:
    for _ in range(MAX_REDIRECTS + 1):
        response = _send(session, request, watch)
        try:
            target = _redirect_target(response, request)
            if target is None:
                _check_status(response, request)
                yield from _body(response, request, watch)
                return
        except BaseException:
            # A connection with an unread body cannot be used again.
            response.raw.close()
            raise
        finally:
            response.close()
        request = replace(request, url=target)
    raise Failure(FailureClass.HOST_CONNECTION, f"more than {MAX_REDIRECTS} redirects")


def _send(session: HttpSession, request: Request, watch: Watch) -> requests.Response:
    seconds = min(request.timeout, request.patience)
    try:
        return session.get(
            request.url,
            headers=request.headers,
            proxy=request.proxy,
            timeout=seconds,
        )
    except (requests.RequestException, *_BROKEN) as exc:
        raise _connection_failure(
            exc, through_proxy=request.through_proxy, fired=watch.fired
        ) from exc


def _redirect_target(response: requests.Response, request: Request) -> str | None:
    """Where to ask instead, if that is wanted and allowed."""
    if not request.follow_redirects or response.status_code not in REDIRECTS:
        return None
    location = response.headers.get("Location", "")
    try:
        target = urljoin(request.url, location.encode("latin-1").decode("utf-8"))
        usable = bool(location) and urlsplit(target).scheme in ("http", "https")
    except ValueError:
        usable = False
    if not usable:
        raise Failure(FailureClass.HOST_HTTP, f"redirects to {location[:200]!r}")
    return target


def _body(
    response: requests.Response, request: Request, watch: Watch
) -> Generator[bytes, None, None]:
    expected = _declared_length(response)
    if expected is not None and request.size_limit is not None and expected > request.size_limit:
        raise FormatError(f"{expected} bytes are declared, {request.size_limit} are allowed")
    end = math.inf if request.size_limit is None else watch.begun + request.patience
    received, window_bytes, window = 0, 0, 0.0
    while True:
        # One read may last as long as its own timeout, whatever the watch was set to before.
        watch.extend(2 * request.timeout)
        start = time.monotonic()
        try:
            piece = response.raw.read1(PIECE)
        except _BROKEN as exc:
            raise _body_failure(
                exc, through_proxy=request.through_proxy, fired=watch.fired
            ) from exc
        if not piece:
            break
        received += len(piece)
        window_bytes += len(piece)
        window += time.monotonic() - start
        with watch.pause():
            yield piece
        if time.monotonic() > end:
            raise Failure(_slow(request.through_proxy), f"{received} bytes, and no time was left")
        if window >= request.timeout:
            if window_bytes < request.low_speed_limit * window:
                raise Failure(
                    _slow(request.through_proxy), f"{window_bytes} bytes in {window:.1f} s"
                )
            window_bytes, window = 0, 0.0
    if watch.fired:
        raise Failure(_slow(request.through_proxy), "the transfer was cut off")
    if expected is not None and received != expected:
        kind = FailureClass.PROXY_SHORT if request.through_proxy else FailureClass.HOST_SHORT
        raise Failure(kind, f"{received} of {expected} bytes")


def _declared_length(response: requests.Response) -> int | None:
    declared = response.headers.get("Content-Length", "")
    return int(declared) if _LENGTH.fullmatch(declared) else None


def _slow(through_proxy: bool) -> FailureClass:
    return FailureClass.PROXY_SLOW if through_proxy else FailureClass.HOST_SLOW


def _check_status(response: requests.Response, request: Request) -> None:
    status = response.status_code
    wanted = 206 if request.byte_range is not None else 200
    if status == wanted or (wanted == 200 and 200 <= status < 300):
        return
    reason = f"HTTP {status}"
    if status == 200:
        reason = "the server ignores byte ranges"
    elif status in REDIRECTS:
        target = redact(response.headers.get("Location", "?")[:200])
        reason += f" to {target!r}, and redirects are not followed"
    if status == 429:
        raise Failure(FailureClass.HOST_CONNECTION, reason, status=status)
    by_proxy = "X-Squid-Error" in response.headers or "error=" in response.headers.get(
        "Proxy-Status", ""
    )
    host_status = status == 200 or status in (400, 404) or 300 <= status < 400 or status >= 500
    of_proxy = request.through_proxy and (by_proxy or not host_status)
    kind = FailureClass.PROXY_HTTP if of_proxy else FailureClass.HOST_HTTP
    raise Failure(kind, reason, status=status)


def _connection_failure(exc: Exception, *, through_proxy: bool, fired: bool) -> Failure:
    if isinstance(exc, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return Failure(FailureClass.HOST_HTTP, f"not a usable URL: {exc}")
    if fired or isinstance(exc, requests.exceptions.Timeout):
        return Failure(_slow(through_proxy), "no answer in time")
    # A proxy that carries TLS cannot be what the other end's certificate is wrong for.
    of_proxy = through_proxy and not isinstance(exc, requests.exceptions.SSLError)
    kind = FailureClass.PROXY_CONNECTION if of_proxy else FailureClass.HOST_CONNECTION
    return Failure(kind, _innermost(exc))


def _body_failure(exc: Exception, *, through_proxy: bool, fired: bool) -> Failure:
    if fired or isinstance(exc, urllib3.exceptions.ReadTimeoutError | TimeoutError):
        return Failure(_slow(through_proxy), "the transfer stalled")
    kind = FailureClass.PROXY_SHORT if through_proxy else FailureClass.HOST_SHORT
    return Failure(kind, _innermost(exc))


def _innermost(exc: BaseException) -> str:
    while exc.__cause__ is not None or exc.__context__ is not None:
        exc = exc.__cause__ or exc.__context__ or exc
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return f"{type(exc).__name__}: {exc}"[:200]
