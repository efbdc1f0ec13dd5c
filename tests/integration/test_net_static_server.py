"""`StaticServer`, asked by a client that checks every byte."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lazyfs.net.static_server import StaticServer

CONTENT = os.urandom(700_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "www"
    (folder / "cvmfs" / "r.example.org" / "data" / "ab").mkdir(parents=True)
    (folder / "cvmfs" / "r.example.org" / ".cvmfspublished").write_bytes(b"manifest")
    (folder / "cvmfs" / "r.example.org" / "data" / "ab" / "cdef").write_bytes(CONTENT)
    (folder / "info.json").write_bytes(b"{}")
    (folder / "empty").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def server(root: Path) -> Iterator[StaticServer]:
    with StaticServer(root) as running:
        yield running


@pytest.fixture
def client(server: StaticServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    yield connection
    connection.close()


OBJECT = "/cvmfs/r.example.org/data/ab/cdef"
MANIFEST = "/cvmfs/r.example.org/.cvmfspublished"

Answer = tuple[int, bytes, http.client.HTTPMessage]


def ask(
    client: http.client.HTTPConnection,
    path: str,
    headers: dict[str, str] | None = None,
    method: str = "GET",
) -> Answer:
    client.request(method, path, headers=headers or {})
    answer = client.getresponse()
    return answer.status, answer.read(), answer.headers


def test_files_arrive_whole_on_one_connection(
    server: StaticServer, client: http.client.HTTPConnection
) -> None:
    client.connect()
    sock = client.sock
    for _ in range(3):
        status, body, headers = ask(client, OBJECT)
        assert (status, body) == (200, CONTENT)
        assert headers["Content-Length"] == str(len(CONTENT))
        assert client.sock is sock
    # The next answer on the connection comes after the bytes of the last one were counted.
    assert ask(client, "/missing")[0] == 404
    assert (server.requests, server.bytes_sent) == (4, 3 * len(CONTENT))


@pytest.mark.parametrize(
    ("path", "kind", "seconds"),
    [
        (MANIFEST, "application/x-cvmfs", 61),
        (OBJECT, "application/octet-stream", 259200),
        ("/info.json", "application/json", 61),
    ],
)
def test_caches_are_told_how_long(
    path: str, kind: str, seconds: int, client: http.client.HTTPConnection
) -> None:
    _, _, headers = ask(client, path)
    assert headers["Content-Type"] == kind
    assert headers["Cache-Control"] == f"max-age={seconds}"
    assert "Content-Encoding" not in headers


def test_a_missing_file_is_not_missed_for_days(client: http.client.HTTPConnection) -> None:
    status, body, headers = ask(client, "/cvmfs/r.example.org/data/00/none")
    assert (status, body) == (404, b"")
    assert headers["Cache-Control"] == "max-age=61"
    assert ask(client, OBJECT)[0] == 200


def test_head_tells_the_length_alone(
    server: StaticServer, client: http.client.HTTPConnection
) -> None:
    status, body, headers = ask(client, OBJECT, method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == str(len(CONTENT))
    assert server.bytes_sent == 0


def test_an_empty_file_is_served(client: http.client.HTTPConnection) -> None:
    assert ask(client, "/empty")[:2] == (200, b"")


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=699999-", 699_999, 700_000),
        ("bytes=-10", 699_990, 700_000),
        ("bytes=5-99999999", 5, 700_000),
    ],
)
def test_ranges(wanted: str, first: int, end: int, client: http.client.HTTPConnection) -> None:
    status, body, headers = ask(client, OBJECT, {"Range": wanted})
    assert status == 206
    assert body == CONTENT[first:end]
    assert headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("wanted", ["bytes=700000-", "bytes=9-3", "bytes=-0"])
def test_ranges_that_do_not_exist(wanted: str, client: http.client.HTTPConnection) -> None:
    status, body, headers = ask(client, OBJECT, {"Range": wanted})
    assert (status, body) == (416, b"")
    assert headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("wanted", ["bytes=-", "bytes=1-2,5-6", "lines=1-2", "bytes=a-b", ""])
def test_ranges_that_are_not_understood_are_ignored(
    wanted: str, client: http.client.HTTPConnection
) -> None:
    assert ask(client, OBJECT, {"Range": wanted})[:2] == (200, CONTENT)


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/cvmfs/../../secret",
        "/%2e%2e/secret",
        "/cvmfs/%2e%2e%2f%2e%2e%2fsecret",
        "/link",
        "/outside/secret",
        "//etc/passwd",
        "/empty%00",
        "/cvmfs",
        "/",
        "/fifo",
        "/" + "x" * 5000,
    ],
)
def test_nothing_but_files_inside_the_folder_is_served(
    path: str, root: Path, client: http.client.HTTPConnection
) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    (root / "outside").symlink_to(root.parent)
    os.mkfifo(root / "fifo")
    status, body, _ = ask(client, path)
    assert status == 404
    assert b"secret" not in body


def test_links_inside_the_folder_are_followed(
    root: Path, client: http.client.HTTPConnection
) -> None:
    (root / "link").symlink_to("info.json")
    assert ask(client, "/link")[:2] == (200, b"{}")


def test_names_that_are_not_utf8(root: Path, client: http.client.HTTPConnection) -> None:
    (root / os.fsdecode(b"\xff\xfe x")).write_bytes(b"odd")
    assert ask(client, "/%FF%FE%20x?query")[:2] == (200, b"odd")


def test_a_delay_is_added_to_each_request(root: Path) -> None:
    with StaticServer(root, delay=0.1) as slow:
        client = http.client.HTTPConnection(urlsplit(slow.url).netloc, timeout=10)
        start = time.monotonic()
        ask(client, "/empty")
        ask(client, "/empty")
        client.close()
        assert time.monotonic() - start >= 0.2


def test_the_bandwidth_is_shared(root: Path) -> None:
    with StaticServer(root, bandwidth=4_000_000) as slow:
        start = time.monotonic()

        def read() -> None:
            client = http.client.HTTPConnection(urlsplit(slow.url).netloc, timeout=10)
            assert ask(client, OBJECT)[1] == CONTENT
            client.close()

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - start
    assert seconds > 3 * len(CONTENT) / 4_000_000 * 0.8


def test_close_ends_connections_that_are_kept(root: Path) -> None:
    server = StaticServer(root)
    server.start()
    client = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    assert ask(client, "/empty")[0] == 200
    server.close()
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(client, "/empty")
    client.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=5)


def test_a_server_that_was_never_started_can_be_closed(root: Path) -> None:
    StaticServer(root).close()


@pytest.mark.parametrize("noise", [b"\x00\xff\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"GET /"])
def test_noise_does_no_harm(
    noise: bytes, server: StaticServer, client: http.client.HTTPConnection
) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as sock:
        sock.sendall(noise)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1 << 16)
    assert ask(client, OBJECT)[:2] == (200, CONTENT)


def test_nothing_is_printed(
    client: http.client.HTTPConnection, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(client, "/none")
    ask(client, "/empty")
    assert capfd.readouterr() == ("", "")


def test_clients_in_parallel(server: StaticServer) -> None:
    bodies: list[bytes] = []

    def read() -> None:
        client = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
        bodies.extend(ask(client, OBJECT)[1] for _ in range(3))
        client.close()

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [CONTENT] * 48
    assert (server.requests, server.bytes_sent) == (48, 48 * len(CONTENT))
