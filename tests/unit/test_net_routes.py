from __future__ import annotations

import logging
import random
from dataclasses import replace

import pytest
from support.clock import FakeClock

from lazyfs.config.settings import NetworkSettings
from lazyfs.net.failure import Failure, FailureClass, Step
from lazyfs.net.proxies import DIRECT
from lazyfs.net.routes import Route, Routes

A, B, C = "http://a", "http://b", "http://c"
REFUSED = Failure(FailureClass.HOST_CONNECTION, "Connection refused")
PROXY_DOWN = Failure(FailureClass.PROXY_CONNECTION, "Connection refused")


BASE = NetworkSettings(servers=(A, B, C), max_retries=0)


def routes(settings: NetworkSettings = BASE) -> Routes:
    return Routes(settings, clock=FakeClock(), rng=random.Random(3))


def test_parallel_failures_switch_once_and_log_once(caplog: pytest.LogCaptureFixture) -> None:
    shared = routes()
    trips = [shared.trip("data/x", "x") for _ in range(10)]
    for trip in trips:
        trip.go(trip.decide(REFUSED), REFUSED)
    assert {trip.route.host for trip in trips} == {B}
    assert shared.host_switches == 1
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.getMessage() for line in lines] == [
        "switching server from http://a to http://b: "
        "cannot connect to the server: Connection refused (x)"
    ]


def test_a_trip_meets_every_server_even_if_others_move_the_current_one() -> None:
    shared = routes()
    slow = shared.trip("data/x", "x")
    shared.switch_host()
    shared.switch_host()
    met = [slow.route.host]
    while slow.decide(REFUSED) is Step.NEXT_HOST:
        slow.go(Step.NEXT_HOST, REFUSED)
        met.append(slow.route.host)
        shared.switch_host()
    assert sorted(met) == [A, B, C]


def test_all_proxies_are_tried_for_one_server_then_again_for_the_next() -> None:
    shared = routes(replace(BASE, proxies="p1:1;p2:2", servers=(A, B)))
    trip = shared.trip("data/x", "x")
    met = [trip.route]
    while (step := trip.decide(PROXY_DOWN)) is not Step.GIVE_UP:
        trip.go(step, PROXY_DOWN)
        met.append(trip.route)
    p1, p2 = "http://p1:1", "http://p2:2"
    assert met == [Route(A, p1), Route(A, p2), Route(B, p1), Route(B, p2)]


def test_during_an_outage_nothing_is_repeated_and_no_line_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared = routes(replace(BASE, max_retries=3))
    shared.outage = True
    trip = shared.trip("data/x", "x")
    assert trip.decide(REFUSED) is Step.NEXT_HOST
    trip.go(Step.NEXT_HOST, REFUSED)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_passwords_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    shared = routes(replace(BASE, proxies="http://u:secret@p1:1;http://v:secret@p2:2"))
    trip = shared.trip("data/x", "x")
    trip.go(trip.decide(PROXY_DOWN), PROXY_DOWN)
    assert "switching proxy from http://p1:1 to http://p2:2" in caplog.text
    assert "secret" not in caplog.text


def test_a_folder_needs_no_proxy() -> None:
    assert Route("file:///srv/r", "http://p1:1").effective_proxy == DIRECT
    assert Route(A, "http://p1:1").effective_proxy == "http://p1:1"


def test_at_most_so_many_servers_are_kept() -> None:
    assert routes(replace(BASE, max_servers=2)).mirrors.urls == (A, B)


def test_with_geographic_order_the_nearest_are_kept() -> None:
    shared = routes(replace(BASE, max_servers=2, use_geoapi=True))
    assert shared.mirrors.urls == BASE.servers
    shared.geo_sorted((C, B, A), (), shared.status()[1])
    assert shared.mirrors.urls == (C, B)


def test_fallback_groups_take_their_geographic_order() -> None:
    shared = routes(replace(BASE, proxies="p:1", fallback_proxies="f:1;g:1"))
    f, g = ("http://f:1",), ("http://g:1",)
    shared.geo_sorted((A,), (g, f), shared.status()[1])
    proxies = shared.status()[1]
    assert proxies.groups == (("http://p:1",), g, f)
    assert proxies.first_fallback_group == 1
