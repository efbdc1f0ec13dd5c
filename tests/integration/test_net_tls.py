"""HTTPS: who is believed, and that TLS does not take a transfer out of its bounds."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.certificates import self_signed
from support.faulty_server import FaultyServer
from support.proxy_server import ProxyServer
from support.receivers import Received

from lazyfs.config.settings import NetworkSettings
from lazyfs.errors import AllMirrorsFailed, LazyfsError, Timeout
from lazyfs.net.downloader import Downloader
from lazyfs.net.session import ca_location

CONTENT = b"over tls " * 2000
PATH = "object"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


class TlsFront:
    """Speaks TLS before a plain server."""

    def __init__(self, certificate: Path, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            secure = self._context.wrap_socket(sock, server_side=True)
            with secure, socket.create_connection(("127.0.0.1", self._port)) as plain:
                forth = threading.Thread(target=_pump, args=(secure, plain), daemon=True)
                forth.start()
                _pump(plain, secure)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / PATH).write_bytes(CONTENT)
    with FaultyServer(tmp_path) as running:
        yield running


@pytest.fixture
def front(certificate: Path, server: FaultyServer) -> Iterator[TlsFront]:
    running = TlsFront(certificate, server.port)
    yield running
    running.close()


@pytest.fixture
def settings(front: TlsFront) -> NetworkSettings:
    return NetworkSettings(
        servers=(front.url,), timeout=0.5, timeout_direct=0.5, deadline=1.5, backoff_init=0
    )


@pytest.fixture
def believing(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X509_CERT_BUNDLE", str(certificate))


def fetch(settings: NetworkSettings) -> bytes:
    receiver = Received(CONTENT)
    with Downloader(settings) as downloader:
        downloader.fetch(PATH, receiver)
    return receiver.data


@pytest.mark.usefixtures("believing")
def test_a_certificate_in_the_bundle_is_believed(settings: NetworkSettings) -> None:
    assert fetch(settings) == CONTENT


def test_a_stranger_is_not_believed(settings: NetworkSettings, server: FaultyServer) -> None:
    with pytest.raises(AllMirrorsFailed, match="certificate"):
        fetch(settings)
    assert server.count() == 0


@pytest.mark.usefixtures("believing")
def test_a_certificate_for_another_name_is_not_believed(
    settings: NetworkSettings, front: TlsFront
) -> None:
    with pytest.raises(AllMirrorsFailed, match=r"(?i)certificate|hostname"):
        fetch(replace(settings, servers=(front.url.replace("127.0.0.1", "localhost"),)))


@pytest.mark.usefixtures("believing")
def test_tls_goes_through_a_proxy_in_a_tunnel(settings: NetworkSettings, front: TlsFront) -> None:
    with ProxyServer() as proxy:
        assert fetch(replace(settings, proxies=proxy.url)) == CONTENT
        assert proxy.seen == [f"CONNECT {front.url.removeprefix('https://')}"]


def test_a_strangers_certificate_is_not_held_against_the_proxy(
    settings: NetworkSettings, server: FaultyServer
) -> None:
    with ProxyServer() as first, ProxyServer() as second:
        chosen = replace(settings, proxies=f"{first.url};{second.url}", max_retries=0)
        with Downloader(chosen) as downloader:
            with pytest.raises(AllMirrorsFailed, match="certificate"):
                downloader.fetch(PATH, Received(CONTENT))
            assert downloader.status().proxies.current == first.url
            assert downloader.status().counters.proxy_switches == 0
        assert len(first.seen) == 1
        assert second.seen == []
    assert server.count() == 0


@pytest.mark.usefixtures("believing")
@pytest.mark.parametrize(
    "fault",
    [
        faults.stall(),
        faults.stall_body(10),
        faults.drip(0.05),
        faults.drip_headers(0.05),
        faults.drip_chunk_line(0.05),
    ],
)
def test_the_bound_holds_inside_tls(
    fault: faults.Fault, settings: NetworkSettings, server: FaultyServer
) -> None:
    server.fault("*", fault)
    start = time.monotonic()
    with pytest.raises(Timeout):
        fetch(settings)
    assert time.monotonic() - start < settings.deadline + 1
    server.clear()
    assert fetch(settings) == CONTENT


@pytest.mark.usefixtures("believing")
def test_close_ends_a_transfer_inside_tls(settings: NetworkSettings, server: FaultyServer) -> None:
    server.fault("*", faults.stall_body(10))
    downloader = Downloader(replace(settings, timeout_direct=30, deadline=60))
    errors: list[LazyfsError] = []

    def run() -> None:
        try:
            downloader.fetch(PATH, Received(CONTENT))
        except LazyfsError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    end = time.monotonic() + 10
    while not server.count() and time.monotonic() < end:
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    downloader.close()
    thread.join(2)
    assert not thread.is_alive()
    assert "closed" in str(errors[0])


def answer_slowly(listener: socket.socket, first: bytes, drip: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_drip, args=(sock, first, drip), daemon=True).start()


def _drip(sock: socket.socket, first: bytes, drip: bytes) -> None:
    with contextlib.suppress(OSError), sock:
        sock.sendall(first)
        while True:
            sock.sendall(drip)
            threading.Event().wait(0.05)


@pytest.fixture
def dripper() -> Iterator[int]:
    """A port where header lines drip, whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = (listener, b"HTTP/1.1 200 OK\r\n", b"X: drip\r\n")
        threading.Thread(target=answer_slowly, args=arguments, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.usefixtures("believing")
def test_the_bound_holds_while_a_proxy_drips_its_consent(
    settings: NetworkSettings, dripper: int
) -> None:
    start = time.monotonic()
    with pytest.raises(Timeout):
        fetch(replace(settings, proxies=f"http://127.0.0.1:{dripper}"))
    assert time.monotonic() - start < settings.deadline + 1


@pytest.mark.usefixtures("believing")
def test_a_server_that_does_not_speak_tls_is_given_up(
    settings: NetworkSettings, dripper: int
) -> None:
    start = time.monotonic()
    with pytest.raises(LazyfsError):
        fetch(replace(settings, servers=(f"https://127.0.0.1:{dripper}",)))
    assert time.monotonic() - start < settings.deadline + 1


def test_where_certificates_are_looked_for() -> None:
    assert ca_location({"X509_CERT_BUNDLE": "/b", "X509_CERT_DIR": "/d"}, system_ca=False) == "/b"
    assert ca_location({"X509_CERT_DIR": "/d"}, system_ca=False) == "/d"
    assert ca_location({"X509_CERT_DIR": "/d"}, system_ca=True) != "/d"
