"""`StaticServer`: a small web server for a repository folder, for demos, tests and benchmarks."""

from __future__ import annotations

import contextlib
import http
import http.server
import io
import os
import re
import socket
import socketserver
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import unquote, urlsplit

DATA_SECONDS = 259200
"""Objects never change: caches may keep them for three days, as upstream's servers say."""

META_SECONDS = 61
"""Manifest and whitelist may be kept for about a minute."""

IDLE_SECONDS = 60.0
"""A connection on which nothing moves for so long is closed."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_PIECE = 1 << 18


class _Bucket:
    """A bandwidth limit shared by all connections."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, size: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + size / self._rate
            wait = self._free_at - now
        time.sleep(wait)


class _Server(socketserver.ThreadingTCPServer):
    # Not http.server's own: that one asks for the name of the address before it listens.
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256
    owner: StaticServer

    def __init__(self, address: tuple[str, int]) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that goes away in mid-transfer is ordinary."""

    def hang_up(self) -> None:
        """End the connections that clients keep open for their next request."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Keep no log; the counters tell."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        owner = self.server.owner
        owner.count_request()
        if owner.delay:
            time.sleep(owner.delay)
        file = owner.open_path(self.path)
        if file is None:
            self._head(http.HTTPStatus.NOT_FOUND, 0)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            wanted = _wanted(self.headers.get("Range", ""), size)
            if wanted is None:
                self._head(http.HTTPStatus.OK, size)
                first, length = 0, size
            elif wanted:
                first, length = wanted.start, len(wanted)
                span = {"Content-Range": f"bytes {first}-{first + length - 1}/{size}"}
                self._head(http.HTTPStatus.PARTIAL_CONTENT, length, span)
            else:
                span = {"Content-Range": f"bytes */{size}"}
                self._head(http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, span)
                return
            if body:
                self._send(file, first, length)

    def _head(
        self, status: http.HTTPStatus, length: int, extra: dict[str, str] | None = None
    ) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        kind, seconds = "application/octet-stream", DATA_SECONDS
        if name.endswith(".json"):
            kind, seconds = "application/json", META_SECONDS
        elif name.startswith(".cvmfs"):
            kind, seconds = "application/x-cvmfs", META_SECONDS
        if status == http.HTTPStatus.NOT_FOUND:
            seconds = META_SECONDS
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", f"max-age={seconds}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        for key, value in (extra or {}).items():
            self.send_header(key, value)
        self.end_headers()

    def _send(self, file: BinaryIO, first: int, length: int) -> None:
        owner = self.server.owner
        end = first + length
        while first < end:
            size = min(end - first, _PIECE)
            owner.throttle(size)
            sent = self.connection.sendfile(file, first, size)
            owner.count_bytes(sent)
            first += sent
            if sent < size:
                # The file shrank; the declared length can be kept no more.
                self.close_connection = True
                return


def _wanted(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for; None: all; empty: none that exist."""
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return range(max(0, size - int(match[2])), size)
    last = int(match[2]) if match[2] else size - 1
    return range(int(match[1]), min(last + 1, size))


class StaticServer:
    """Serves one folder over HTTP/1.1 from threads, while it is entered.

    Args:
        root: The folder; nothing outside it is served, whatever links say.
        host: Address to listen on.
        port: 0 chooses a free one.
        delay: Seconds added to every request.
        bandwidth: Bytes per second shared by all connections; None: no limit.
    """

    def __init__(
        self,
        root: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        delay: float = 0.0,
        bandwidth: float | None = None,
    ) -> None:
        self._root = root.resolve()
        self.delay = delay
        self._bucket = _Bucket(bandwidth) if bandwidth else None
        self._lock = threading.Lock()
        self.requests = 0
        """Requests answered so far."""
        self.bytes_sent = 0
        """Bytes of bodies sent so far."""
        self._server = _Server((host, port))
        self._server.owner = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="lazyfs-serve", daemon=True
        )

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        host, port = self._server.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering, also on connections that are open."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.hang_up()

    def wait(self) -> None:
        """Return when the server was closed."""
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open_path(self, target: str) -> BinaryIO | None:
        """The file that a request names, or None if there is none inside the folder."""
        relative = unquote(urlsplit(target).path, errors="surrogateescape").lstrip("/")
        if "\0" in relative:
            return None
        with contextlib.suppress(OSError):
            path = (self._root / relative).resolve()
            if path.is_relative_to(self._root) and path.is_file():
                return io.FileIO(path)
        return None

    def throttle(self, size: int) -> None:
        """Wait until ``size`` bytes may be sent."""
        if self._bucket is not None:
            self._bucket.take(size)

    def count_request(self) -> None:
        """Count one request."""
        with self._lock:
            self.requests += 1

    def count_bytes(self, size: int) -> None:
        """Count bytes sent."""
        with self._lock:
            self.bytes_sent += size
