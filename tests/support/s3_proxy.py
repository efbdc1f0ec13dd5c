"""`S3Proxy`: stands before an S3 server and lets requests fail in the ways of the real world."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import unquote

LINE_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, and the means to answer it well or badly. Connections are used once."""

    client: socket.socket
    server: tuple[str, int]
    method: str
    path: str
    """Unescaped, without the query."""
    query: str
    head: bytes
    """As it arrived."""
    body: bytes
    closed: threading.Event
    """Set when the proxy ends."""

    @property
    def conditional(self) -> bool:
        """Whether it asks for something only if…"""
        return b"\r\nif-" in self.head.lower()

    def forward(self) -> bytes:
        """What the server answers."""
        with socket.create_connection(self.server, timeout=30) as server:
            first, _, rest = self.head.partition(b"\r\n")
            server.sendall(first + b"\r\nConnection: close\r\n" + rest + self.body)
            pieces = []
            while piece := server.recv(1 << 16):
                pieces.append(piece)
        return b"".join(pieces)

    def answer(self, status: int, body: bytes, fields: str = "") -> None:
        """Send an answer that the server knows nothing of."""
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        self.client.sendall(head.encode() + fields.encode() + b"\r\n")
        if self.method != "HEAD":
            self.client.sendall(body)

    def pass_on(self) -> None:
        """As if there were no proxy."""
        self.client.sendall(self.forward())


Fault = Callable[[Exchange], None]


def refuse(status: int, code: str, message: str = "said the proxy") -> Fault:
    """S3's way to say no."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return lambda exchange: exchange.answer(status, body, "Content-Type: application/xml\r\n")


def page(status: int, body: bytes = b"<html>it works</html>") -> Fault:
    """A page of a web server that is no object store."""
    return lambda exchange: exchange.answer(status, body, "Content-Type: text/html\r\n")


def hang_up(_: Exchange) -> None:
    """The connection ends; the server knows nothing of the request."""


def obey_silently(exchange: Exchange) -> None:
    """The server has done what was asked for, but nobody is told."""
    exchange.forward()


def stall(exchange: Exchange) -> None:
    """Nothing is ever answered."""
    exchange.closed.wait()


def drip(exchange: Exchange) -> None:
    """Header lines without end."""
    exchange.client.sendall(b"HTTP/1.1 200 OK\r\n")
    while not exchange.closed.wait(0.05):
        exchange.client.sendall(b"X-Drip: drip\r\n")


def cut(after: int) -> Fault:
    """The connection ends after so many bytes of the body."""

    def strike(exchange: Exchange) -> None:
        head, separator, body = exchange.forward().partition(b"\r\n\r\n")
        exchange.client.sendall(head + separator + body[:after])

    return strike


def garbage(exchange: Exchange) -> None:
    """Bytes that are not HTTP."""
    exchange.client.sendall(b"\x00\xff what is this?\r\n\r\n")


def endless(exchange: Exchange) -> None:
    """A body without end."""
    exchange.client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n")
    while not exchange.closed.is_set():
        exchange.client.sendall(bytes(1 << 16))


def meanwhile(action: Callable[[], object]) -> Fault:
    """Something else happens before the request gets to the server."""

    def strike(exchange: Exchange) -> None:
        action()
        exchange.pass_on()

    return strike


@dataclass(slots=True)
class _Rule:
    fault: Fault
    applies: Callable[[Exchange], bool]
    skip: int
    times: int | None
    struck: int = field(default=0)


class S3Proxy:
    """A proxy on loopback.

    Args:
        port: Of the server behind it.
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._closed = threading.Event()
        self.seen: list[str] = []
        """``METHOD PATH?QUERY`` of each request, in order."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def strike(
        self,
        fault: Fault,
        applies: Callable[[Exchange], bool] = lambda _: True,
        *,
        skip: int = 0,
        times: int | None = 1,
    ) -> None:
        """Let requests fail.

        Args:
            fault: How.
            applies: To which ones.
            skip: So many go well first.
            times: So many fail; None: all.
        """
        with self._lock:
            self._rules.append(_Rule(fault, applies, skip, times))

    def count(self, method: str) -> int:
        """Requests so far."""
        return sum(seen.startswith(f"{method} ") for seen in self.seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, client.makefile("rb") as reader:
            client.settimeout(60)
            exchange = self._read(client, reader)
            if exchange is not None:
                self._fault(exchange)(exchange)

    def _read(self, client: socket.socket, reader: BinaryIO) -> Exchange | None:
        lines = []
        while (line := reader.readline(LINE_LIMIT)).strip():
            lines.append(line)
        if not lines:
            return None
        length = 0
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        method, target, _ = lines[0].decode("latin-1").split()
        path, _, query = target.partition("?")
        head, body = b"".join(lines) + b"\r\n", reader.read(length)
        with self._lock:
            self.seen.append(f"{method} {target}")
        return Exchange(
            client, self._server, method, unquote(path), query, head, body, self._closed
        )

    def _fault(self, exchange: Exchange) -> Fault:
        with self._lock:
            for rule in self._rules:
                if rule.times is not None and rule.struck >= rule.times:
                    continue
                if not rule.applies(exchange):
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.struck += 1
                return rule.fault
        return Exchange.pass_on
