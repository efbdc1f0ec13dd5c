"""Requests that are repeated, and how long they may take."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from lazyfs.errors import NetworkError, Timeout
from lazyfs.net.patient_pool import Patience, PatientPool

QUICK = Patience(attempts=3, connect=0.3, answer=0.3, lowest_rate=1e6, first_pause=0)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"

Handler = Callable[[socket.socket], None]


class Server:
    """Hands each connection to the next handler; the last one stays."""

    def __init__(self, *handlers: Handler) -> None:
        self._handlers = list(handlers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/path?secret=signature"

    def close(self) -> None:
        self.closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                handler = self._handlers[min(self.connections, len(self._handlers) - 1)]
                self.connections += 1
                threading.Thread(target=self._serve, args=(client, handler), daemon=True).start()

    def _serve(self, client: socket.socket, handler: Handler) -> None:
        with contextlib.suppress(OSError), client:
            handler(client)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def start(*handlers: Handler) -> Server:
            server = Server(*handlers)
            stack.callback(server.close)
            return server

        yield start


def answers(content: bytes) -> Handler:
    """Closes the connection, and says so: one that may be used again could be found closed."""

    def handle(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(content.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    return handle


def get(server: Server, pool: PatientPool | None = None, **options: Any) -> bytes:
    data: bytes = (pool or PatientPool(QUICK)).urlopen("GET", server.url, **options).data
    return data


def test_a_busy_server_is_asked_again_after_growing_pauses(serve: Callable[..., Server]) -> None:
    server = serve(answers(BUSY), answers(BUSY), answers(OK))
    pauses: list[float] = []
    patience = replace(QUICK, first_pause=100.0, longest_pause=150.0)
    assert get(server, PatientPool(patience, sleep=pauses.append)) == b"ok"
    assert len(pauses) == 2
    assert pauses[0] <= 100
    assert pauses[1] <= 150


def test_a_server_cannot_make_us_wait(serve: Callable[..., Server]) -> None:
    server = serve(
        answers(b"HTTP/1.1 503 Busy\r\nRetry-After: 9999\r\nContent-Length: 0\r\n\r\n"),
        answers(OK),
    )
    assert get(server) == b"ok"


def test_attempts_come_to_an_end(serve: Callable[..., Server]) -> None:
    server = serve(answers(BUSY))
    with pytest.raises(NetworkError, match="HTTP 503") as caught:
        get(server)
    assert server.connections == QUICK.attempts
    assert "signature" not in str(caught.value)


@pytest.mark.parametrize("name", ["If-Match", "if-none-match"])
def test_a_conditional_request_is_sent_once(serve: Callable[..., Server], name: str) -> None:
    server = serve(answers(BUSY), answers(OK))
    with pytest.raises(NetworkError):
        get(server, headers={name: "*"})
    assert server.connections == 1


def test_refusals_are_answers(serve: Callable[..., Server]) -> None:
    server = serve(answers(b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\nnone"))
    response = PatientPool(QUICK).urlopen("GET", server.url)
    assert (response.status, response.data) == (404, b"none")


def test_redirects_are_not_followed(serve: Callable[..., Server]) -> None:
    server = serve(
        answers(b"HTTP/1.1 307 Go\r\nLocation: http://host.invalid/\r\nContent-Length: 0\r\n\r\n")
    )
    assert PatientPool(QUICK).urlopen("GET", server.url).status == 307


def test_a_slow_upload_has_more_time_than_one_piece_of_it(serve: Callable[..., Server]) -> None:
    """The bound for each piece is passed several times by the whole."""
    size = 24 << 20

    def sip(client: socket.socket) -> None:
        pause = threading.Event()
        left = size
        while left > 0:
            left -= len(client.recv(1 << 20))
            pause.wait(0.02)
        client.sendall(OK)

    start = time.monotonic()
    assert get(serve(sip), body=bytes(size)) == b"ok"
    assert time.monotonic() - start > QUICK.connect


def test_an_upload_that_nobody_takes_is_given_up(serve: Callable[..., Server]) -> None:
    closed = threading.Event()
    server = serve(lambda _: closed.wait(10) and None)
    with pytest.raises(Timeout, match="no answer in time"):
        get(server, body=bytes(32 << 20))
    closed.set()
    assert server.connections == QUICK.attempts


def test_headers_that_are_cut_off_by_the_bound_are_no_answer(serve: Callable[..., Server]) -> None:
    def drip(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n")
        while not server.closed.wait(0.02):
            client.sendall(b"X-Drip: drip\r\n")

    server = serve(drip)
    with pytest.raises(Timeout, match="no answer in time"):
        get(server)


def read_streamed(pool: PatientPool, server: Server) -> bytes:
    with pool.streaming() as stream:
        response = pool.urlopen("GET", server.url, preload_content=False)
        with contextlib.closing(response):
            return b"".join(stream.pieces(response))


def test_a_streamed_answer_is_read_in_pieces(serve: Callable[..., Server]) -> None:
    content = bytes(range(256)) * 4096
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    pool = PatientPool(QUICK)
    assert read_streamed(pool, serve(answers(head + content))) == content
    # The thread's next request has its own bounds and repetitions again.
    assert get(serve(answers(BUSY), answers(OK)), pool) == b"ok"


@pytest.mark.parametrize("length", [b"Content-Length: 100000\r\n", b""])
def test_a_streamed_answer_may_not_stall(serve: Callable[..., Server], length: bytes) -> None:
    def stall(client: socket.socket) -> None:
        client.recv(1 << 16)
        client.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + bytes(50_000))
        server.closed.wait()

    server = serve(stall)
    with pytest.raises(Timeout):
        read_streamed(PatientPool(QUICK), server)


def test_a_streamed_answer_that_is_cut_short_is_an_error(serve: Callable[..., Server]) -> None:
    server = serve(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort"))
    with pytest.raises(NetworkError):
        read_streamed(PatientPool(QUICK), server)
