"""Several servers and proxies: who is asked next, what is logged, when the first choice returns."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.clock import FakeClock
from support.faulty_server import FaultyServer
from support.proxy_server import ProxyServer
from support.receivers import Received

from lazyfs.config.settings import NetworkSettings
from lazyfs.errors import AllMirrorsFailed, ConfigError, HashMismatch, ObjectMissing, Timeout
from lazyfs.net.downloader import Downloader

CONTENT = b"the object " * 300
PATH = "data/ab/cdef"

DEAD = "http://127.0.0.1:9"
"""The discard port; nothing listens there."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "ab").mkdir(parents=True)
    (tmp_path / PATH).write_bytes(CONTENT)
    (tmp_path / ".cvmfspublished").write_bytes(b"manifest")
    return tmp_path


@pytest.fixture
def first(root: Path) -> Iterator[FaultyServer]:
    with FaultyServer(root) as server:
        yield server


@pytest.fixture
def second(root: Path) -> Iterator[FaultyServer]:
    with FaultyServer(root) as server:
        yield server


@pytest.fixture
def settings(first: FaultyServer, second: FaultyServer) -> NetworkSettings:
    return NetworkSettings(
        servers=(first.url, second.url),
        timeout=0.5,
        timeout_direct=0.5,
        backoff_init=0,
        deadline=10,
    )


def fetch(downloader: Downloader) -> bytes:
    receiver = Received(CONTENT)
    downloader.fetch(PATH, receiver)
    return receiver.data


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "fault", [faults.status(500), faults.status(404), faults.corrupt(), faults.cut(7)]
)
def test_the_next_server_helps_out_and_stays(
    fault: faults.Fault,
    settings: NetworkSettings,
    first: FaultyServer,
    second: FaultyServer,
) -> None:
    first.fault("*", fault)
    with Downloader(settings) as downloader:
        assert fetch(downloader) == CONTENT
        assert downloader.status().host == second.url
        first.forget()
        assert fetch(downloader) == CONTENT
        assert first.count() == 0


def test_one_line_says_from_what_to_what_and_why(
    settings: NetworkSettings,
    first: FaultyServer,
    second: FaultyServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first.stop()
    with Downloader(settings) as downloader:
        downloader.fetch(PATH, Received(CONTENT), label="/the/path")
        fetch(downloader)
    assert warnings(caplog) == [
        f"switching server from {first.url} to {second.url}: "
        "cannot connect to the server: Connection refused (/the/path)"
    ]


def test_many_readers_that_meet_a_dead_server_switch_once(
    settings: NetworkSettings, first: FaultyServer, caplog: pytest.LogCaptureFixture
) -> None:
    first.stop()
    results: list[bytes] = []
    with Downloader(settings) as downloader:
        threads = [
            threading.Thread(target=lambda: results.append(fetch(downloader))) for _ in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert downloader.status().counters.host_switches == 1
    assert results == [CONTENT] * 32
    assert len(warnings(caplog)) == 1


def test_the_first_server_returns_after_its_time(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    clock = FakeClock()
    first.stop()
    with Downloader(settings, clock=clock, sleep=clock.sleep) as downloader:
        fetch(downloader)
        first.restart()
        clock.advance(settings.host_reset_after - 1)
        fetch(downloader)
        assert first.count() == 0
        clock.advance(2)
        fetch(downloader)
        assert first.count() == 1


def test_repetitions_wait_longer_each_time(settings: NetworkSettings, first: FaultyServer) -> None:
    clock = FakeClock()
    first.fault("*", faults.cut(3))
    alone = replace(
        settings,
        servers=(first.url,),
        max_retries=4,
        backoff_init=2.0,
        backoff_max=3.0,
        deadline=60,
    )
    with (
        Downloader(alone, clock=clock, sleep=clock.sleep, rng=random.Random(5)) as downloader,
        pytest.raises(AllMirrorsFailed),
    ):
        fetch(downloader)
    assert len(clock.slept) == 4
    assert 0 < clock.slept[0] <= 2.0
    assert clock.slept[-1] <= 3.0
    assert len(set(clock.slept)) > 1, "no jitter"


def test_no_pause_reaches_beyond_the_deadline(
    settings: NetworkSettings, first: FaultyServer
) -> None:
    clock = FakeClock()
    first.fault("*", faults.cut(3))
    alone = replace(
        settings,
        servers=(first.url,),
        max_retries=99,
        backoff_init=9.0,
        backoff_max=9.0,
        deadline=5,
    )
    with (
        Downloader(alone, clock=clock, sleep=clock.sleep, rng=random.Random(5)) as downloader,
        pytest.raises(Timeout),
    ):
        fetch(downloader)
    assert clock.now <= 5.0


def test_what_nobody_has_is_missing(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    with Downloader(settings) as downloader, pytest.raises(ObjectMissing) as caught:
        downloader.fetch("data/00/none", Received(b""))
    assert (first.count(), second.count()) == (1, 1)
    assert caught.value.object == "data/00/none"


def test_what_is_damaged_everywhere_is_told_as_such(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    for server in (first, second):
        server.fault("*", faults.corrupt())
    with Downloader(settings) as downloader, pytest.raises(HashMismatch) as caught:
        fetch(downloader)
    assert caught.value.url is not None
    assert caught.value.url.startswith(second.url)
    assert (first.count(), second.count()) == (2, 2)


def test_each_server_is_named_when_all_fail(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    first.stop()
    second.fault("*", faults.status(502))
    with Downloader(settings) as downloader, pytest.raises(AllMirrorsFailed) as caught:
        fetch(downloader)
    text = str(caught.value)
    assert f"{first.url}: cannot connect to the server: Connection refused" in text
    assert f"{second.url}: server answered with an error: HTTP 502" in text


# --- looking after servers -------------------------------------------------------------------


def test_servers_can_be_switched_and_set(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    with Downloader(settings) as downloader:
        downloader.switch_host()
        fetch(downloader)
        assert (first.count(), second.count()) == (0, 1)
        downloader.set_hosts([first.url])
        fetch(downloader)
        assert (first.count(), second.count()) == (1, 1)
        with pytest.raises(ConfigError):
            downloader.set_hosts([])
        assert [host.url for host in downloader.status().hosts] == [first.url]


def test_probing_measures_twice_and_sorts(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    first.fault(".cvmfspublished", faults.delay(0.1))
    with Downloader(settings) as downloader:
        downloader.probe_hosts()
        status = downloader.status()
    assert (first.count(".cvmfspublished"), second.count(".cvmfspublished")) == (2, 2)
    assert [host.url for host in status.hosts] == [second.url, first.url]
    assert [host.state for host in status.hosts] == ["probed"] * 2
    assert status.hosts[1].rtt_ms is not None
    assert status.hosts[1].rtt_ms >= 100


def test_probing_finds_what_is_down(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    first.stop()
    with Downloader(settings) as downloader:
        downloader.probe_hosts()
        hosts = downloader.status().hosts
    assert [(host.url, host.state) for host in hosts] == [
        (second.url, "probed"),
        (first.url, "down"),
    ]


def geo_settings(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> NetworkSettings:
    """Servers with two host names, 127.0.0.1 and localhost."""
    return replace(
        settings,
        servers=(first.url, second.url.replace("127.0.0.1", "localhost")),
        proxy_template="me.example.org",
    )


def test_the_geo_order_is_asked_for_and_taken(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    for server in (first, second):
        server.fault("api/*", faults.replace(b"2,1\n"))
    chosen = geo_settings(settings, first, second)
    with Downloader(chosen) as downloader:
        assert downloader.geo_sort()
        assert [host.url for host in downloader.status().hosts] == [*reversed(chosen.servers)]
        assert downloader.status().hosts[0].state == "geographically ordered"
    asked = [seen.path for server in (first, second) for seen in server.seen]
    assert asked == ["api/v1.0/geo/me.example.org/127.0.0.1,localhost"]


@pytest.mark.parametrize("reply", [b"2,2", b"1", b"<html>", b""])
def test_a_bad_geo_reply_changes_nothing(
    reply: bytes, settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    for server in (first, second):
        server.fault("api/*", faults.replace(reply))
    chosen = geo_settings(settings, first, second)
    with Downloader(chosen) as downloader:
        assert not downloader.geo_sort()
        assert tuple(host.url for host in downloader.status().hosts) == chosen.servers
    assert first.count("api/*") + second.count("api/*") == 2


# --- proxies ---------------------------------------------------------------------------------


@pytest.fixture
def proxy() -> Iterator[ProxyServer]:
    with ProxyServer() as running:
        yield running


def test_the_proxy_is_used(
    settings: NetworkSettings, proxy: ProxyServer, first: FaultyServer
) -> None:
    with Downloader(replace(settings, proxies=proxy.url)) as downloader:
        assert fetch(downloader) == CONTENT
        assert downloader.status().proxies.current == proxy.url
    assert proxy.seen == [f"{first.url}/{PATH}"]


def test_the_environment_names_no_proxy(
    settings: NetworkSettings, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    with Downloader(settings) as downloader:
        fetch(downloader)
    assert proxy.seen == []


def test_the_environment_does_not_take_a_proxy_away(
    settings: NetworkSettings, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with Downloader(replace(settings, proxies=proxy.url)) as downloader:
        fetch(downloader)
    assert len(proxy.seen) == 1


def test_a_poisoned_proxy_is_passed_by_through_the_same_proxy(
    settings: NetworkSettings, proxy: ProxyServer, first: FaultyServer, second: FaultyServer
) -> None:
    proxy.poison(f"{first.url}/{PATH}", b"poison" * 100)
    with Downloader(replace(settings, proxies=proxy.url)) as downloader:
        assert fetch(downloader) == CONTENT
        assert fetch(downloader) == CONTENT
    assert len(proxy.seen) == 3
    assert (first.count(), second.count()) == (2, 0)


def test_a_dead_proxy_is_left_for_the_next_group_and_returns(
    settings: NetworkSettings, proxy: ProxyServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    chosen = replace(settings, proxies=f"{DEAD};{proxy.url}")
    with Downloader(chosen, clock=clock, sleep=clock.sleep) as downloader:
        fetch(downloader)
        fetch(downloader)
        status = downloader.status()
        assert status.proxies.current == proxy.url
        assert status.counters.proxy_switches == 1
        clock.advance(settings.proxy_reset_after + 1)
        assert downloader.status().proxies.current == DEAD
    assert warnings(caplog) == [
        f"switching proxy from {DEAD} to {proxy.url}: "
        f"cannot connect to the proxy: Connection refused ({PATH})"
    ]


def test_direct_after_a_dead_proxy(settings: NetworkSettings, first: FaultyServer) -> None:
    with Downloader(replace(settings, proxies=f"{DEAD};DIRECT")) as downloader:
        assert fetch(downloader) == CONTENT
    assert first.count() == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {}),
        (407, {}),
        (503, {"X-Squid-Error": "ERR_CONNECT_FAIL 111"}),
        (502, {"Proxy-Status": "cache; error=connection_refused"}),
    ],
)
def test_an_error_of_the_proxy_is_not_held_against_the_server(
    status: int, headers: dict[str, str], settings: NetworkSettings, first: FaultyServer
) -> None:
    with ProxyServer(error=status, headers=headers) as broken:
        chosen = replace(settings, proxies=f"{broken.url};DIRECT")
        with Downloader(chosen) as downloader:
            assert fetch(downloader) == CONTENT
            assert downloader.status().host == first.url
            assert downloader.status().proxies.current == "DIRECT"


def test_an_error_of_the_server_is_not_held_against_the_proxy(
    settings: NetworkSettings, proxy: ProxyServer, first: FaultyServer, second: FaultyServer
) -> None:
    first.fault("*", faults.status(503))
    with Downloader(replace(settings, proxies=f"{proxy.url};DIRECT")) as downloader:
        assert fetch(downloader) == CONTENT
        assert downloader.status().host == second.url
        assert downloader.status().proxies.current == proxy.url


def test_all_proxies_dead_means_all_servers_are_tried_through_each(
    settings: NetworkSettings, first: FaultyServer, second: FaultyServer
) -> None:
    chosen = replace(settings, proxies=f"{DEAD};http://127.0.0.1:11", max_retries=0)
    with Downloader(chosen) as downloader, pytest.raises(AllMirrorsFailed) as caught:
        fetch(downloader)
    assert "cannot connect to the proxy" in str(caught.value)
    assert downloader.status().counters.requests == 4
    assert (first.count(), second.count()) == (0, 0)


def test_proxies_can_be_set_and_switched(settings: NetworkSettings, proxy: ProxyServer) -> None:
    with Downloader(settings) as downloader:
        downloader.set_proxies(f"{DEAD};{proxy.url}")
        downloader.switch_proxy_group()
        fetch(downloader)
        assert len(proxy.seen) == 1
        downloader.rebalance_proxies()
        assert downloader.status().proxies.current == proxy.url
        with pytest.raises(ConfigError):
            downloader.set_proxies("")
        downloader.set_proxies("DIRECT", proxy.url)
        assert downloader.status().proxies.first_fallback_group == 0


def test_sharding_spreads_objects_and_survives_the_loss_of_a_member(
    root: Path, settings: NetworkSettings, proxy: ProxyServer
) -> None:
    with ProxyServer() as other:
        chosen = replace(settings, proxies=f"{proxy.url}|{other.url}", proxy_shard=True)
        names = [f"data/{i:02x}/{i * 7919:038x}" for i in range(0, 256, 8)]
        for name in names:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(CONTENT)
        with Downloader(chosen) as downloader:
            for name in names:
                downloader.fetch(name, Received(CONTENT))
            assert len(proxy.seen) > 5
            assert len(other.seen) > 5
            other.close()
            for name in names:
                downloader.fetch(name, Received(CONTENT))


def test_passwords_go_to_the_proxy_and_into_no_report(
    settings: NetworkSettings, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = replace(settings, proxies="http://user:secret@127.0.0.1:9", max_retries=0)
    with Downloader(chosen) as downloader, pytest.raises(AllMirrorsFailed) as caught:
        fetch(downloader)
    assert "secret" not in str(caught.value)
    assert "secret" not in caplog.text


def test_timeouts_can_be_set(settings: NetworkSettings) -> None:
    with Downloader(settings) as downloader:
        downloader.set_timeouts(3, 4)
        assert (downloader.status().timeout, downloader.status().timeout_direct) == (3, 4)
        with pytest.raises(ConfigError):
            downloader.set_timeouts(0, 4)
