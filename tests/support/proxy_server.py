"""`ProxyServer`: a small forwarding HTTP proxy with a cache that a test can poison."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import urlsplit

LINE_LIMIT = 1 << 16


class ProxyServer:
    """Forwards ``GET`` of absolute URLs, and ``CONNECT``, while it is entered.

    Args:
        error: Answer everything with this status in place of forwarding.
        headers: Sent with that answer.
    """

    def __init__(self, *, error: int | None = None, headers: dict[str, str] | None = None) -> None:
        self._error = error
        self._headers = headers or {}
        self._lock = threading.Lock()
        self._cache: dict[str, bytes] = {}
        self.seen: list[str] = []
        """URLs asked for, in order; ``CONNECT host:port`` for tunnels."""
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """For a proxy specification."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def poison(self, url: str, body: bytes) -> None:
        """Keep ``body`` for ``url`` until somebody asks with ``no-cache``."""
        with self._lock:
            self._cache[url] = body

    def close(self) -> None:
        """Refuse connections and break those that are open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with self._lock:
                    self._sockets.add(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock, sock.makefile("rb") as reader:
            while self._answer(sock, reader):
                pass
        with self._lock:
            self._sockets.discard(sock)

    def _answer(self, sock: socket.socket, reader: BinaryIO) -> bool:
        words = reader.readline(LINE_LIMIT).decode("latin-1").split()
        if len(words) != 3:
            return False
        fields: dict[str, str] = {}
        while line := reader.readline(LINE_LIMIT).decode("latin-1").strip():
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        method, target = words[:2]
        with self._lock:
            self.seen.append(f"CONNECT {target}" if method == "CONNECT" else target)
        if self._error is not None:
            _respond(sock, self._error, b"proxy error page", self._headers)
            return True
        if method == "CONNECT":
            _tunnel(sock, target)
            return False
        _respond(sock, *self._get(target, fields), {})
        return True

    def _get(self, url: str, fields: dict[str, str]) -> tuple[int, bytes]:
        fresh = fields.get("cache-control") == "no-cache"
        with self._lock:
            if fresh:
                self._cache.pop(url, None)
            elif url in self._cache:
                return 200, self._cache[url]
        parts = urlsplit(url)
        origin = http.client.HTTPConnection(parts.netloc, timeout=10)
        with contextlib.closing(origin):
            origin.request("GET", parts.path)
            answer = origin.getresponse()
            return answer.status, answer.read()


def _respond(sock: socket.socket, status: int, body: bytes, headers: dict[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} {http.client.responses[status]}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def _tunnel(sock: socket.socket, target: str) -> None:
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as other:
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        ends = {sock: other, other: sock}
        while True:
            for readable in select.select(list(ends), [], [])[0]:
                data = readable.recv(1 << 16)
                if not data:
                    return
                ends[readable].sendall(data)
