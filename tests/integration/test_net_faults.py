"""Every way in which one server can fail: a typed error in bounded time, or the right bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.faults import Fault
from support.faulty_server import FaultyServer
from support.receivers import FullDisk, Received

from lazyfs.config.settings import NetworkSettings
from lazyfs.errors import (
    AllMirrorsFailed,
    CacheFull,
    FormatError,
    HashMismatch,
    LazyfsError,
    ObjectMissing,
    Timeout,
    VerificationError,
)
from lazyfs.net.downloader import Downloader

CONTENT = bytes(range(256)) * 40
PATH = "data/ab/cdef"
TIMEOUT = 2.0
"""Long enough for a loaded machine, where nothing waits for it to pass."""
IMPATIENT = 0.3
"""Where something does."""
DEADLINE = 4.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "data" / "ab").mkdir(parents=True)
    (tmp_path / PATH).write_bytes(CONTENT)
    with FaultyServer(tmp_path) as running:
        yield running


@pytest.fixture
def downloader(server: FaultyServer) -> Iterator[Downloader]:
    settings = NetworkSettings(
        servers=(server.url,),
        timeout_direct=TIMEOUT,
        deadline=DEADLINE,
        low_speed_limit=1000,
        backoff_init=0,
    )
    with Downloader(settings) as running:
        yield running


def for_trouble(trouble: str, server: FaultyServer, *, retries: int) -> Downloader:
    slow = TROUBLES[trouble][1] is Timeout
    settings = NetworkSettings(
        servers=(server.url,),
        timeout_direct=IMPATIENT if slow else TIMEOUT,
        deadline=DEADLINE,
        low_speed_limit=1000,
        backoff_init=0,
        max_retries=retries,
    )
    return Downloader(settings)


def test_an_object_arrives_whole(downloader: Downloader, server: FaultyServer) -> None:
    receiver = Received(CONTENT)
    downloader.fetch(PATH, receiver)
    assert receiver.finished
    assert receiver.data == CONTENT
    seen = server.seen[0]
    assert seen.path == PATH
    assert seen.headers["accept-encoding"] == "identity"
    assert "pragma" not in seen.headers
    assert "cache-control" not in seen.headers
    counters = downloader.status().counters
    assert (counters.requests, counters.bytes_received, counters.failures) == (1, len(CONTENT), 0)
    assert counters.seconds > 0


def test_connections_are_kept(downloader: Downloader, server: FaultyServer) -> None:
    for _ in range(5):
        downloader.fetch(PATH, Received(CONTENT))
    assert (server.count(), server.accepted) == (5, 1)


def test_a_connection_that_the_server_closed_meanwhile_is_no_failure(
    downloader: Downloader, server: FaultyServer
) -> None:
    downloader.fetch(PATH, Received(CONTENT))
    server.stop()
    server.restart()
    downloader.fetch(PATH, Received(CONTENT))
    assert downloader.status().counters.failures == 0


def test_a_slow_body_above_the_limit_may_outlast_the_deadline(server: FaultyServer) -> None:
    server.fault("*", faults.drip(0.02, 400))
    settings = NetworkSettings(
        servers=(server.url,), timeout_direct=0.1, deadline=0.2, low_speed_limit=1000
    )
    with Downloader(settings) as downloader:
        receiver = Received(CONTENT)
        start = time.monotonic()
        downloader.fetch(PATH, receiver)
    assert receiver.data == CONTENT
    assert time.monotonic() - start > 0.4


TROUBLES: dict[str, tuple[Fault, type[LazyfsError], int]] = {
    # name: fault, error, requests
    "stalls before the headers": (faults.stall(), Timeout, 2),
    "stalls in the body": (faults.stall_body(100), Timeout, 2),
    "stalls in a body it will close": (faults.stall_body(100, close=True), Timeout, 2),
    "drips the body": (faults.drip(0.05), Timeout, 2),
    "drips headers": (faults.drip_headers(0.05), Timeout, 2),
    "drips a chunk's length": (faults.drip_chunk_line(0.05), Timeout, 2),
    "sends trailers without end": (faults.endless_trailer(), Timeout, 2),
    "cuts the body": (faults.cut(5000), AllMirrorsFailed, 2),
    "cuts before the body": (faults.cut(0), AllMirrorsFailed, 2),
    "declares too much": (faults.wrong_length(7), AllMirrorsFailed, 2),
    "declares too little": (faults.wrong_length(-7), VerificationError, 2),
    "resets": (faults.reset(), AllMirrorsFailed, 2),
    "resets in the body": (faults.reset(5000), AllMirrorsFailed, 2),
    "does not speak HTTP": (faults.garbage(), AllMirrorsFailed, 2),
    "sends endless header lines": (
        faults.garbage(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000),
        AllMirrorsFailed,
        2,
    ),
    "sends too many headers": (
        faults.garbage(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        AllMirrorsFailed,
        2,
    ),
    "says nothing": (faults.garbage(b""), AllMirrorsFailed, 2),
    "is overloaded": (faults.status(429), AllMirrorsFailed, 2),
    "is broken": (faults.status(503), AllMirrorsFailed, 1),
    "refuses": (faults.status(403), AllMirrorsFailed, 1),
    "answers with nothing new": (faults.status(304), AllMirrorsFailed, 1),
    "does not have it": (faults.status(404), ObjectMissing, 1),
    "redirects": (faults.redirect("http://127.0.0.1:9/elsewhere"), AllMirrorsFailed, 1),
    "redirects with an endless body": (
        faults.redirect_flood("http://127.0.0.1:9/"),
        AllMirrorsFailed,
        1,
    ),
    "redirects to garbage": (faults.redirect("\xff\xfe\x01"), AllMirrorsFailed, 1),
    "corrupts": (faults.corrupt(), HashMismatch, 2),
    "truncates": (faults.truncate(100), VerificationError, 2),
    "sends something else": (faults.replace(b"<html>It works!</html>"), VerificationError, 2),
    "sends nothing": (faults.replace(b""), VerificationError, 2),
    "sends too much": (faults.replace(CONTENT * 2), FormatError, 2),
    "never stops": (faults.endless(), FormatError, 2),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_ends_in_a_typed_error_within_the_bound(trouble: str, server: FaultyServer) -> None:
    fault, error, requests = TROUBLES[trouble]
    server.fault("*", fault)
    receiver = Received(CONTENT)
    with for_trouble(trouble, server, retries=1) as downloader:
        start = time.monotonic()
        with pytest.raises(error) as caught:
            downloader.fetch(PATH, receiver)
        assert time.monotonic() - start < DEADLINE
        assert downloader.status().counters.failures == requests
    assert server.count() == requests
    assert not receiver.finished
    assert server.url in f"{caught.value}"
    assert f"{caught.value}".isprintable()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_after_trouble_the_same_downloader_works(trouble: str, server: FaultyServer) -> None:
    server.fault("*", TROUBLES[trouble][0])
    with for_trouble(trouble, server, retries=0) as downloader:
        with pytest.raises(LazyfsError):
            downloader.fetch(PATH, Received(CONTENT))
        server.clear()
        downloader.set_timeouts(TIMEOUT, TIMEOUT)
        receiver = Received(CONTENT)
        downloader.fetch(PATH, receiver)
    assert receiver.data == CONTENT


TRANSIENT = [name for name, (_, _, requests) in TROUBLES.items() if requests == 2]


@pytest.mark.parametrize("trouble", TRANSIENT)
def test_trouble_that_passes_is_survived(trouble: str, server: FaultyServer) -> None:
    server.fault("*", TROUBLES[trouble][0], times=1)
    receiver = Received(CONTENT)
    with for_trouble(trouble, server, retries=3) as downloader:
        downloader.fetch(PATH, receiver)
        assert downloader.status().counters.failures >= 1
    assert receiver.data == CONTENT


def test_chunks_without_a_length_are_fine(downloader: Downloader, server: FaultyServer) -> None:
    server.fault("*", faults.chunked())
    receiver = Received(CONTENT)
    downloader.fetch(PATH, receiver)
    assert receiver.data == CONTENT


@pytest.mark.parametrize("length", ["9" * 5000, "-4", "x", "\xb2"])
def test_a_length_that_is_no_number_is_ignored(
    length: str, downloader: Downloader, server: FaultyServer
) -> None:
    server.fault("*", faults.declared_length(length))
    receiver = Received(CONTENT)
    downloader.fetch(PATH, receiver)
    assert receiver.data == CONTENT


def test_a_content_encoding_that_nobody_asked_for_is_not_undone(
    downloader: Downloader, server: FaultyServer
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    server.fault("*", faults.garbage(head % len(CONTENT) + CONTENT))
    receiver = Received(CONTENT)
    downloader.fetch(PATH, receiver)
    assert receiver.data == CONTENT


def test_a_poisoned_cache_is_passed_by(downloader: Downloader, server: FaultyServer) -> None:
    server.fault("*", faults.corrupt(cached=True))
    receiver = Received(CONTENT)
    downloader.fetch(PATH, receiver)
    assert receiver.data == CONTENT
    first, second = server.seen
    assert "cache-control" not in first.headers
    assert (second.headers["cache-control"], second.headers["pragma"]) == ("no-cache", "no-cache")


def test_a_full_disk_is_nobody_elses_fault(downloader: Downloader, server: FaultyServer) -> None:
    receiver = FullDisk()
    with pytest.raises(CacheFull):
        downloader.fetch(PATH, receiver)
    assert receiver.attempts == 1
    assert server.count() == 1
    downloader.fetch(PATH, Received(CONTENT))


def test_a_byte_range_is_asked_for_inclusively(
    downloader: Downloader, server: FaultyServer
) -> None:
    receiver = Received(CONTENT[100:150])
    downloader.fetch(PATH, receiver, byte_range=(100, 50))
    assert receiver.data == CONTENT[100:150]
    assert server.seen[0].headers["range"] == "bytes=100-149"


def test_a_server_without_ranges_does_not_flood_us(
    downloader: Downloader, server: FaultyServer
) -> None:
    server.fault("*", faults.status(200))
    with pytest.raises(AllMirrorsFailed, match="ignores byte ranges"):
        downloader.fetch(PATH, Received(CONTENT[100:150]), byte_range=(100, 50))


def test_unusual_names_are_escaped(tmp_path: Path, downloader: Downloader) -> None:
    name = "a b#c?d%41\N{GREEK SMALL LETTER MU}"
    (tmp_path / name).write_bytes(CONTENT)
    receiver = Received(CONTENT)
    downloader.fetch(name, receiver)
    assert receiver.data == CONTENT


# --- documents -------------------------------------------------------------------------------


def test_a_document_is_handed_over(downloader: Downloader) -> None:
    assert downloader.fetch_document(PATH) == CONTENT


def test_a_document_can_be_asked_for_past_caches(
    downloader: Downloader, server: FaultyServer
) -> None:
    downloader.fetch_document(PATH, no_cache=True)
    assert server.seen[0].headers["cache-control"] == "no-cache"


def test_asking_past_caches_still_survives_a_cut(
    downloader: Downloader, server: FaultyServer
) -> None:
    server.fault("*", faults.cut(10), times=1)
    assert downloader.fetch_document(PATH, no_cache=True) == CONTENT
    assert [seen.headers["cache-control"] for seen in server.seen] == ["no-cache"] * 2


def test_a_document_at_its_limit_is_taken_and_one_beyond_is_not(downloader: Downloader) -> None:
    assert len(downloader.fetch_document(PATH, limit=len(CONTENT))) == len(CONTENT)
    with pytest.raises(FormatError):
        downloader.fetch_document(PATH, limit=len(CONTENT) - 1)


def test_a_document_that_is_declared_too_long_is_not_read(
    downloader: Downloader, server: FaultyServer
) -> None:
    server.fault("*", faults.wrong_length(1 << 40))
    with pytest.raises(FormatError, match="declared"):
        downloader.fetch_document(PATH)


def test_a_document_without_length_ends_at_the_limit(
    downloader: Downloader, server: FaultyServer
) -> None:
    server.fault("*", faults.endless())
    with pytest.raises(FormatError, match="longer than"):
        downloader.fetch_document(PATH)


def test_a_document_that_drips_above_the_limit_ends_by_the_deadline(server: FaultyServer) -> None:
    server.fault("*", faults.drip(0.02, 100))
    settings = NetworkSettings(
        servers=(server.url,), timeout_direct=0.3, deadline=0.6, low_speed_limit=1000
    )
    with Downloader(settings) as downloader:
        start = time.monotonic()
        with pytest.raises(Timeout, match="no time was left"):
            downloader.fetch_document(PATH)
    # Left to itself, it would take two seconds and more.
    assert time.monotonic() - start < 1.5


# --- redirects -------------------------------------------------------------------------------


@pytest.fixture
def follower(server: FaultyServer) -> Iterator[Downloader]:
    settings = NetworkSettings(
        servers=(server.url,), timeout_direct=TIMEOUT, backoff_init=0, follow_redirects=True
    )
    with Downloader(settings) as running:
        yield running


def test_redirects_are_followed_where_that_is_wanted(
    follower: Downloader, server: FaultyServer
) -> None:
    server.fault("moved", faults.redirect(f"/{PATH}", 301))
    receiver = Received(CONTENT)
    follower.fetch("moved", receiver)
    assert receiver.data == CONTENT


def test_a_followed_redirect_keeps_range_and_no_cache(
    follower: Downloader, server: FaultyServer
) -> None:
    server.fault("moved", faults.redirect(f"{server.url}/{PATH}"))
    follower.fetch("moved", Received(CONTENT[5:9]), byte_range=(5, 4))
    assert server.seen[-1].headers["range"] == "bytes=5-8"


def test_four_redirects_are_followed_and_a_fifth_is_not(
    follower: Downloader, server: FaultyServer
) -> None:
    for number in range(4):
        server.fault(f"r{number}", faults.redirect(f"/r{number + 1}"))
    server.fault("r4", faults.redirect(f"/{PATH}"))
    follower.fetch("r1", Received(CONTENT))
    with pytest.raises(AllMirrorsFailed, match="more than 4 redirects"):
        follower.fetch("r0", Received(CONTENT))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "http://[x"])
def test_redirects_lead_only_to_http(
    location: str, follower: Downloader, server: FaultyServer
) -> None:
    server.fault("*", faults.redirect(location))
    with pytest.raises(AllMirrorsFailed):
        follower.fetch(PATH, Received(CONTENT))


def test_the_body_of_a_redirect_is_not_read(follower: Downloader, server: FaultyServer) -> None:
    server.fault("moved", faults.redirect_flood(f"/{PATH}"))
    start = time.monotonic()
    follower.fetch("moved", Received(CONTENT))
    assert time.monotonic() - start < TIMEOUT
