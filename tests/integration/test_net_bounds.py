"""Every fetch ends within its bound, whatever hangs; and nothing lasts longer than the trouble."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.faulty_server import FaultyServer
from support.receivers import Received
from support.waiting import wait_until

from lazyfs.config.settings import NetworkSettings
from lazyfs.errors import LazyfsError, NetworkError, Timeout
from lazyfs.net.downloader import Downloader
from lazyfs.net.watchdog import Watchdog

CONTENT = b"0123456789" * 1000
PATH = "data/ab/cdef"
DEADLINE = 1.0
SLACK = 1.0
"""Seconds that a loaded machine may add."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "data" / "ab").mkdir(parents=True)
    (tmp_path / PATH).write_bytes(CONTENT)
    with FaultyServer(tmp_path) as running:
        yield running


@pytest.fixture
def settings(server: FaultyServer) -> NetworkSettings:
    return NetworkSettings(
        servers=(server.url,), timeout_direct=0.4, deadline=DEADLINE, backoff_init=0
    )


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A server that does not even complete connections: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def fetch(downloader: Downloader) -> bytes:
    receiver = Received(CONTENT)
    downloader.fetch(PATH, receiver)
    return receiver.data


def outcome(downloader: Downloader) -> tuple[LazyfsError | None, float]:
    """How a fetch ended, and after how many seconds."""
    start = time.monotonic()
    try:
        fetch(downloader)
    except LazyfsError as exc:
        return exc, time.monotonic() - start
    return None, time.monotonic() - start


class Running:
    """Fetches in threads."""

    def __init__(self, downloader: Downloader, count: int) -> None:
        self.outcomes: list[tuple[LazyfsError | None, float]] = []
        self._threads = [
            threading.Thread(target=lambda: self.outcomes.append(outcome(downloader)))
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def test_the_deadline_ends_what_would_go_on(
    settings: NetworkSettings, server: FaultyServer
) -> None:
    server.fault("*", faults.stall())
    with Downloader(replace(settings, max_retries=1000)) as downloader:
        error, seconds = outcome(downloader)
    assert isinstance(error, Timeout)
    assert DEADLINE - 0.1 < seconds < DEADLINE + SLACK


def test_a_paused_server_is_given_up(settings: NetworkSettings, server: FaultyServer) -> None:
    server.pause()
    with Downloader(settings) as downloader:
        error, seconds = outcome(downloader)
    assert isinstance(error, Timeout)
    assert seconds < DEADLINE + SLACK


def test_a_black_hole_is_given_up(settings: NetworkSettings, black_hole: str) -> None:
    with Downloader(replace(settings, servers=(black_hole,))) as downloader:
        error, seconds = outcome(downloader)
    assert isinstance(error, NetworkError)
    assert 0.4 <= seconds < DEADLINE + SLACK


def test_many_black_holes_take_no_longer_than_the_deadline(
    settings: NetworkSettings, black_hole: str
) -> None:
    holes = tuple(f"{black_hole}/{number}" for number in range(20))
    with Downloader(replace(settings, servers=holes)) as downloader:
        error, seconds = outcome(downloader)
    assert isinstance(error, Timeout)
    assert seconds < DEADLINE + SLACK


def test_a_server_behind_black_holes_is_found(
    settings: NetworkSettings, black_hole: str, server: FaultyServer
) -> None:
    chosen = replace(settings, servers=(black_hole, server.url), deadline=10)
    with Downloader(chosen) as downloader:
        assert fetch(downloader) == CONTENT
        assert outcome(downloader)[1] < 0.4


def test_headers_get_no_more_than_what_is_left(
    settings: NetworkSettings, server: FaultyServer
) -> None:
    server.fault("*", faults.drip_headers(0.05))
    with Downloader(replace(settings, timeout_direct=20.0)) as downloader:
        error, seconds = outcome(downloader)
    assert isinstance(error, Timeout)
    assert seconds < DEADLINE + SLACK


def test_a_connect_gets_no_more_than_what_is_left(
    settings: NetworkSettings, black_hole: str
) -> None:
    chosen = replace(settings, servers=(black_hole,), timeout_direct=20.0)
    with Downloader(chosen) as downloader:
        error, seconds = outcome(downloader)
    assert isinstance(error, Timeout)
    assert seconds < DEADLINE + SLACK


def test_a_body_that_stalls_after_a_fast_start_ends_after_two_timeouts(
    settings: NetworkSettings, server: FaultyServer
) -> None:
    server.fault("*", faults.stall_body(9000))
    with Downloader(replace(settings, max_retries=0, deadline=60)) as downloader:
        error, seconds = outcome(downloader)
    assert isinstance(error, Timeout)
    assert seconds < 2 * 0.4 + SLACK


def test_a_slow_disk_is_not_a_slow_server(settings: NetworkSettings, server: FaultyServer) -> None:
    class SlowDisk(Received):
        def write(self, data: bytes) -> None:
            threading.Event().wait(0.3)
            super().write(data)

    server.fault("*", faults.drip(0.01, 4000))
    with Downloader(replace(settings, timeout_direct=0.1, max_retries=0)) as downloader:
        receiver = SlowDisk(CONTENT)
        downloader.fetch(PATH, receiver)
    assert receiver.data == CONTENT


def test_waiting_for_a_connection_counts(settings: NetworkSettings, server: FaultyServer) -> None:
    server.fault("*", faults.stall())
    with Downloader(replace(settings, connections=2, max_retries=10)) as downloader:
        running = Running(downloader, 16)
        running.join()
    assert all(isinstance(error, Timeout) for error, _ in running.outcomes)
    assert max(seconds for _, seconds in running.outcomes) < DEADLINE + SLACK


def test_only_so_many_transfers_run_at_once(
    settings: NetworkSettings, server: FaultyServer
) -> None:
    server.pause()
    chosen = replace(settings, connections=3, deadline=30, timeout_direct=10)
    with Downloader(chosen) as downloader:
        running = Running(downloader, 12)
        wait_until(lambda: server.accepted >= 3)
        threading.Event().wait(0.1)
        server.resume()
        running.join()
        assert [error for error, _ in running.outcomes] == [None] * 12
        assert server.accepted <= 3


# --- outages ---------------------------------------------------------------------------------


def test_sixty_four_readers_of_a_dead_server_all_end_and_all_recover(
    settings: NetworkSettings, server: FaultyServer
) -> None:
    server.pause()
    chosen = replace(settings, connections=16, deadline=3)
    with Downloader(chosen) as downloader:
        running = Running(downloader, 64)
        running.join()
        assert all(isinstance(error, Timeout) for error, _ in running.outcomes)
        assert max(seconds for _, seconds in running.outcomes) < chosen.deadline + SLACK
        server.resume()
        downloader.set_timeouts(5, 5)
        again = Running(downloader, 64)
        again.join()
        assert [error for error, _ in again.outcomes] == [None] * 64


def test_during_an_outage_each_server_is_asked_once_without_a_pause(
    settings: NetworkSettings, server: FaultyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    slept: list[float] = []
    other = server.url.replace("127.0.0.1", "localhost")
    server.stop()
    chosen = replace(settings, servers=(server.url, other), max_retries=2)
    with Downloader(chosen, sleep=slept.append) as downloader:
        assert isinstance(outcome(downloader)[0], NetworkError)
        first = downloader.status().counters.requests
        assert (first, len(slept), len(caplog.records)) == (6, 4, 1)
        assert isinstance(outcome(downloader)[0], NetworkError)
        assert downloader.status().counters.requests == first + 2
        assert (len(slept), len(caplog.records)) == (4, 1)
        server.restart()
        assert fetch(downloader) == CONTENT


def test_after_an_outage_failures_are_repeated_again(
    settings: NetworkSettings, server: FaultyServer
) -> None:
    server.stop()
    with Downloader(settings) as downloader:
        outcome(downloader)
        server.restart()
        fetch(downloader)
        server.fault("*", faults.cut(5), times=1)
        assert fetch(downloader) == CONTENT


# --- close -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [faults.stall(), faults.stall_body(10), faults.drip(0.05)])
def test_close_ends_running_transfers(
    fault: faults.Fault, settings: NetworkSettings, server: FaultyServer
) -> None:
    server.fault("*", fault)
    downloader = Downloader(replace(settings, timeout_direct=30.0, deadline=60))
    running = Running(downloader, 4)
    wait_until(lambda: server.count() == 4)
    start = time.monotonic()
    downloader.close()
    running.join()
    assert time.monotonic() - start < SLACK
    assert all(isinstance(error, NetworkError) for error, _ in running.outcomes)
    assert all("closed" in str(error) for error, _ in running.outcomes)


def test_close_ends_connecting(settings: NetworkSettings, black_hole: str) -> None:
    chosen = replace(settings, servers=(black_hole,), timeout_direct=30.0, deadline=60)
    downloader = Downloader(chosen)
    running = Running(downloader, 2)
    wait_until(lambda: len(downloader._watchdog._active) == 2)
    threading.Event().wait(0.1)
    start = time.monotonic()
    downloader.close()
    running.join()
    assert time.monotonic() - start < SLACK


def test_close_ends_pauses(settings: NetworkSettings, server: FaultyServer) -> None:
    server.fault("*", faults.status(429))
    chosen = replace(settings, backoff_init=60.0, backoff_max=60.0, deadline=600)
    downloader = Downloader(chosen)
    running = Running(downloader, 2)
    wait_until(lambda: downloader.status().counters.failures == 2)
    start = time.monotonic()
    downloader.close()
    running.join()
    assert time.monotonic() - start < SLACK


def test_close_ends_waiting_for_a_connection(
    settings: NetworkSettings, server: FaultyServer
) -> None:
    server.fault("*", faults.stall())
    chosen = replace(settings, connections=1, timeout_direct=30.0, deadline=60)
    downloader = Downloader(chosen)
    running = Running(downloader, 8)
    wait_until(lambda: server.count() == 1)
    downloader.close()
    running.join()
    assert server.count() == 1
    assert len(running.outcomes) == 8


def test_a_closed_downloader_says_so(settings: NetworkSettings, server: FaultyServer) -> None:
    downloader = Downloader(settings)
    downloader.close()
    downloader.close()
    error, _ = outcome(downloader)
    assert isinstance(error, NetworkError)
    assert "closed" in str(error)
    assert server.count() == 0


# --- the watchdog itself ---------------------------------------------------------------------


def test_a_watch_cuts_its_socket_when_its_time_is_over() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Watchdog().watch(0.05) as watch:
        watch.carry(ours)
        ours.settimeout(5)
        assert ours.recv(1) == b""
        assert watch.fired


def test_a_watch_that_fired_before_it_knew_the_socket_cuts_it_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Watchdog().watch(60) as watch:
        watch.fire()
        watch.carry(ours)
        ours.settimeout(5)
        assert ours.recv(1) == b""


def test_a_watch_that_is_over_cuts_nothing() -> None:
    watchdog = Watchdog()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with watchdog.watch(0.05) as watch:
            watch.carry(ours)
        with watchdog.watch(0.15) as other:
            wait_until(lambda: other.fired)
        assert not watch.fired
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


def test_a_pause_does_not_count() -> None:
    with Watchdog().watch(0.1) as watch:
        with watch.pause():
            threading.Event().wait(0.4)
        assert not watch.fired
        wait_until(lambda: watch.fired)
