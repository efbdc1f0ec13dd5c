"""One attempt to bring one object from one server through one proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from lazyfs.cas.store import Receiver
from lazyfs.errors import FormatError, VerificationError
from lazyfs.net.failure import Failure, FailureClass
from lazyfs.net.proxies import DIRECT
from lazyfs.net.session import proxy_argument
from lazyfs.net.watchdog import Watch, Watchdog

PIECE = 1 << 17
"""Bytes read at a time."""

_NO_CACHE = {"Pragma": "no-cache", "Cache-Control": "no-cache"}
_BAD = (FormatError, VerificationError)


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

    @property
    def headers(self) -> dict[str, str]:
        """Headers beside the session's own."""
        headers = dict(_NO_CACHE) if self.no_cache else {}
        if self.byte_range is not None:
            first, length = self.byte_range
            headers["Range"] = f"bytes={first}-{first + length - 1}"
        return headers


def attempt(
    session: requests.Session, watchdog: Watchdog, request: Request, receiver: Receiver
) -> int:
    """Deliver one object into ``receiver``; the bytes received.

    Connecting and the headers take at most three timeouts together; the body ends when fewer than
    ``low_speed_limit`` bytes a second came over one timeout.

    Raises:
        Failure: it did not work; its kind says what may.
        CacheError: the receiver's side failed.
    """
    receiver.restart()
    try:
        if request.url.startswith("file://"):
            received = _copy(_read_file(request), receiver)
        else:
            with watchdog.watch(3 * request.timeout) as watch:
                received = _copy(_download(session, request, watch), receiver)
        receiver.finish()
    except _BAD as exc:
        exc.url = exc.url or request.url
        raise Failure(FailureClass.BAD_DATA, str(exc), cause=exc) from exc
    return received


def _copy(pieces: Iterator[bytes], receiver: Receiver) -> int:
    received = 0
    for piece in pieces:
        received += len(piece)
        receiver.write(piece)
    return received


def _read_file(request: Request) -> Iterator[bytes]:
    path = Path(unquote(urlsplit(request.url).path, errors="surrogateescape"))
    first, left = request.byte_range or (0, None)
    try:
        with path.open("rb") as file:
            file.seek(first)
            while piece := file.read(PIECE if left is None else min(PIECE, left)):
                left = None if left is None else left - len(piece)
                yield piece
    except FileNotFoundError as exc:
        raise Failure(FailureClass.HOST_HTTP, "no such file", status=404) from exc
    except OSError as exc:
        raise Failure(FailureClass.HOST_CONNECTION, exc.strerror or str(exc)) from exc


def _download(session: requests.Session, request: Request, watch: Watch) -> Iterator[bytes]:
    through_proxy = request.proxy != DIRECT
    try:
        response = session.get(
            request.url,
            headers=request.headers,
            proxies=proxy_argument(request.proxy),
            timeout=(request.timeout, request.timeout),
            stream=True,
            allow_redirects=request.follow_redirects,
        )
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
        raise _connection_failure(exc, through_proxy=through_proxy, fired=watch.fired) from exc
    try:
        _check_status(response, request, through_proxy=through_proxy)
        yield from _body(response, request, watch)
    except BaseException:
        # A connection with an unread body cannot be used again.
        response.raw.close()
        raise
    finally:
        response.close()


def _body(response: requests.Response, request: Request, watch: Watch) -> Iterator[bytes]:
    through_proxy = request.proxy != DIRECT
    declared = response.headers.get("Content-Length", "")
    expected = int(declared) if declared.isdecimal() else None
    received, window_bytes, window_start = 0, 0, time.monotonic()
    while True:
        # One read may last as long as its own timeout, whatever the watch was set to before.
        watch.extend(2 * request.timeout)
        try:
            piece = response.raw.read1(PIECE)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
            raise _body_failure(exc, through_proxy=through_proxy) from exc
        if not piece:
            break
        received += len(piece)
        window_bytes += len(piece)
        yield piece
        elapsed = time.monotonic() - window_start
        if elapsed >= request.timeout:
            if window_bytes < request.low_speed_limit * elapsed:
                kind = FailureClass.PROXY_SLOW if through_proxy else FailureClass.HOST_SLOW
                raise Failure(kind, f"{window_bytes} bytes in {elapsed:.1f} s")
            window_bytes, window_start = 0, time.monotonic()
    if watch.fired:
        kind = FailureClass.PROXY_SLOW if through_proxy else FailureClass.HOST_SLOW
        raise Failure(kind, "the transfer was cut off")
    if expected is not None and received != expected:
        kind = FailureClass.PROXY_SHORT if through_proxy else FailureClass.HOST_SHORT
        raise Failure(kind, f"{received} of {expected} bytes")


def _check_status(response: requests.Response, request: Request, *, through_proxy: bool) -> None:
    status = response.status_code
    wanted = 206 if request.byte_range is not None else 200
    if status == wanted or (wanted == 200 and 200 <= status < 300):
        return
    reason = f"HTTP {status}"
    if status == 200:
        reason = "the server ignores byte ranges"
    elif status in (301, 302, 303, 307, 308):
        reason += (
            f" to {response.headers.get('Location', '?')[:200]}, and redirects are not followed"
        )
    if status == 429:
        raise Failure(FailureClass.HOST_CONNECTION, reason, status=status)
    by_proxy = "X-Squid-Error" in response.headers or "error=" in response.headers.get(
        "Proxy-Status", ""
    )
    host_status = status == 200 or status in (400, 404) or 300 <= status < 400 or status >= 500
    of_proxy = by_proxy or (through_proxy and not host_status)
    kind = FailureClass.PROXY_HTTP if of_proxy else FailureClass.HOST_HTTP
    raise Failure(kind, reason, status=status)


def _connection_failure(exc: Exception, *, through_proxy: bool, fired: bool) -> Failure:
    if isinstance(exc, requests.exceptions.TooManyRedirects):
        return Failure(FailureClass.HOST_CONNECTION, "too many redirects")
    if isinstance(exc, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return Failure(FailureClass.HOST_HTTP, f"not a usable URL: {exc}")
    if fired or isinstance(exc, requests.exceptions.Timeout):
        kind = FailureClass.PROXY_SLOW if through_proxy else FailureClass.HOST_SLOW
        return Failure(kind, "no answer in time")
    kind = FailureClass.PROXY_CONNECTION if through_proxy else FailureClass.HOST_CONNECTION
    return Failure(kind, _innermost(exc))


def _body_failure(exc: Exception, *, through_proxy: bool) -> Failure:
    if isinstance(exc, urllib3.exceptions.ReadTimeoutError | TimeoutError):
        kind = FailureClass.PROXY_SLOW if through_proxy else FailureClass.HOST_SLOW
        return Failure(kind, "the transfer stalled")
    kind = FailureClass.PROXY_SHORT if through_proxy else FailureClass.HOST_SHORT
    return Failure(kind, _innermost(exc))


def _innermost(exc: BaseException) -> str:
    while exc.__cause__ is not None or exc.__context__ is not None:
        exc = exc.__cause__ or exc.__context__ or exc
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return f"{type(exc).__name__}: {exc}"[:200]
