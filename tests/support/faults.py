"""The ways in which a server of the tests can fail; see `support.faulty_server`."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, and the means to answer it well or badly."""

    connection: socket.socket
    path: str
    headers: dict[str, str]
    body: bytes | None
    """What is asked for; None if there is no such file."""
    cleared: threading.Event
    """Set when the server's rules are cleared or the server stops."""

    def head(
        self,
        status: int,
        length: int | None,
        extra: dict[str, str] | None = None,
        *,
        close: bool = False,
    ) -> None:
        """Send the status line and headers."""
        fields = {"Content-Type": "application/octet-stream", **(extra or {})}
        if length is not None:
            fields["Content-Length"] = str(length)
        if close:
            fields["Connection"] = "close"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def answer(self, body: bytes | None = None) -> bool:
        """Answer correctly, with ``body`` in place of the file if given."""
        content = self.body if body is None else body
        if content is None:
            self.head(404, 0)
            return True
        self.head(206 if "range" in self.headers else 200, len(content))
        self.connection.sendall(content)
        return True

    def hold(self, seconds: float | None = None) -> bool:
        """Wait; True when the rules were cleared meanwhile."""
        return self.cleared.wait(seconds)

    @property
    def content(self) -> bytes:
        """The file; empty if there is none."""
        return self.body or b""


Fault = Callable[[Exchange], bool]
"""Answers a request; whether the connection may be used again."""


def stall() -> Fault:
    """Nothing is ever answered."""

    def strike(exchange: Exchange) -> bool:
        exchange.hold()
        return False

    return strike


def delay(seconds: float) -> Fault:
    """A right answer, late."""

    def strike(exchange: Exchange) -> bool:
        exchange.hold(seconds)
        return exchange.answer()

    return strike


def stall_body(after: int, *, close: bool = False) -> Fault:
    """The body stops after ``after`` bytes, with the connection open."""

    def strike(exchange: Exchange) -> bool:
        exchange.head(200, len(exchange.content), close=close)
        exchange.connection.sendall(exchange.content[:after])
        exchange.hold()
        return False

    return strike


def drip(interval: float, size: int = 1) -> Fault:
    """The body comes ``size`` bytes at a time."""

    def strike(exchange: Exchange) -> bool:
        content = exchange.content
        exchange.head(200, len(content))
        for start in range(0, len(content), size):
            exchange.connection.sendall(content[start : start + size])
            if exchange.hold(interval):
                return False
        return True

    return strike


def drip_headers(interval: float) -> Fault:
    """Header lines without end, one each interval."""

    def strike(exchange: Exchange) -> bool:
        exchange.connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in count():
            exchange.connection.sendall(f"X-{number}: drip\r\n".encode())
            if exchange.hold(interval):
                break
        return False

    return strike


def drip_chunk_line(interval: float) -> Fault:
    """A chunked body whose first chunk's length never ends, on a connection that closes."""

    def strike(exchange: Exchange) -> bool:
        exchange.head(200, None, {"Transfer-Encoding": "chunked"}, close=True)
        while not exchange.hold(interval):
            exchange.connection.sendall(b"0")
        return False

    return strike


def endless_trailer() -> Fault:
    """A complete chunked body with trailer lines that never end, sent at full speed."""

    def strike(exchange: Exchange) -> bool:
        content = exchange.content
        exchange.head(200, None, {"Transfer-Encoding": "chunked"}, close=True)
        exchange.connection.sendall(b"%x\r\n" % len(content) + content + b"\r\n0\r\n")
        while not exchange.cleared.is_set():
            exchange.connection.sendall(b"X-T: " + b"t" * 1000 + b"\r\n")
        return False

    return strike


def chunked() -> Fault:
    """A right answer in chunks, without a length."""

    def strike(exchange: Exchange) -> bool:
        content = exchange.content
        exchange.head(200, None, {"Transfer-Encoding": "chunked"})
        for start in range(0, len(content), 1000):
            piece = content[start : start + 1000]
            exchange.connection.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        exchange.connection.sendall(b"0\r\n\r\n")
        return True

    return strike


def cut(after: int) -> Fault:
    """The connection closes after ``after`` bytes of the body."""

    def strike(exchange: Exchange) -> bool:
        exchange.head(200, len(exchange.content))
        exchange.connection.sendall(exchange.content[:after])
        return False

    return strike


def wrong_length(difference: int) -> Fault:
    """The declared length is wrong by ``difference``; all of the body is sent."""

    def strike(exchange: Exchange) -> bool:
        exchange.head(200, len(exchange.content) + difference)
        exchange.connection.sendall(exchange.content)
        return False

    return strike


def declared_length(text: str) -> Fault:
    """The declared length is ``text``; all of the body is sent."""

    def strike(exchange: Exchange) -> bool:
        exchange.head(200, None, {"Content-Length": text}, close=True)
        exchange.connection.sendall(exchange.content)
        return False

    return strike


def status(code: int, headers: dict[str, str] | None = None) -> Fault:
    """An error page."""

    def strike(exchange: Exchange) -> bool:
        page = b"<html>no</html>"
        exchange.head(code, len(page), headers)
        exchange.connection.sendall(page)
        return True

    return strike


def replace(body: bytes) -> Fault:
    """Other bytes than those of the file."""
    return lambda exchange: exchange.answer(body)


def corrupt(*, cached: bool = False) -> Fault:
    """One bit of the body is wrong.

    Args:
        cached: Only in a cache on the way: right for who asks with ``no-cache``.
    """

    def strike(exchange: Exchange) -> bool:
        content = exchange.content
        if cached and exchange.headers.get("cache-control") == "no-cache":
            return exchange.answer()
        middle = len(content) // 2
        return exchange.answer(
            content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        )

    return strike


def truncate(size: int) -> Fault:
    """Only the first ``size`` bytes, with a length that fits them."""
    return lambda exchange: exchange.answer(exchange.content[:size])


def garbage(data: bytes = b"\x00\xffnot http at all\r\n\r\n") -> Fault:
    """Bytes that are not HTTP."""

    def strike(exchange: Exchange) -> bool:
        exchange.connection.sendall(data)
        return False

    return strike


def redirect(location: str, code: int = 302) -> Fault:
    """To somewhere else."""

    def strike(exchange: Exchange) -> bool:
        exchange.head(code, 0, {"Location": location})
        return True

    return strike


def redirect_flood(location: str) -> Fault:
    """To somewhere else, with a body that never ends."""

    def strike(exchange: Exchange) -> bool:
        exchange.head(302, None, {"Location": location}, close=True)
        return _flood(exchange)

    return strike


def reset(after: int | None = None) -> Fault:
    """The connection is reset, at once or after some bytes of the body."""

    def strike(exchange: Exchange) -> bool:
        if after is not None:
            exchange.head(200, len(exchange.content))
            exchange.connection.sendall(exchange.content[:after])
        linger = struct.pack("ii", 1, 0)
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return False

    return strike


def endless() -> Fault:
    """A body without length that never ends, at full speed."""

    def strike(exchange: Exchange) -> bool:
        exchange.head(200, None, close=True)
        return _flood(exchange)

    return strike


def _flood(exchange: Exchange) -> bool:
    block = bytes(1 << 16)
    while not exchange.cleared.is_set():
        exchange.connection.sendall(block)
    return False
