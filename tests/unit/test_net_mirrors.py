from __future__ import annotations

import pytest
from support.clock import FakeClock

from lazyfs.errors import ConfigError
from lazyfs.net.mirrors import MirrorChain

A, B, C = "http://a/cvmfs/r", "http://b/cvmfs/r", "http://c/cvmfs/r"


def chain(clock: FakeClock, *urls: str, reset_after: float = 100.0) -> MirrorChain:
    return MirrorChain(urls or (A, B, C), reset_after=reset_after, clock=clock)


def test_begins_with_the_first() -> None:
    assert chain(FakeClock()).current == A


def test_many_transfers_that_fail_on_one_server_switch_once() -> None:
    mirrors = chain(FakeClock())
    assert [mirrors.switch_from(A) for _ in range(5)] == [B] * 5


def test_a_late_failure_of_a_server_left_behind_changes_nothing() -> None:
    mirrors = chain(FakeClock())
    mirrors.switch_from(A)
    mirrors.switch_from(B)
    assert mirrors.switch_from(A) == C
    assert mirrors.current == C


def test_a_transfer_is_not_sent_back_to_what_it_has_tried() -> None:
    mirrors = chain(FakeClock())
    mirrors.switch_from(A)
    mirrors.switch_from(B)
    # Others moved on to C, and this one meets C last of all.
    assert mirrors.switch_from(C, {A, C}) == B
    assert mirrors.current == A


def test_the_order_is_a_ring() -> None:
    mirrors = chain(FakeClock())
    assert [mirrors.switch_from(mirrors.current) for _ in range(4)] == [B, C, A, B]


def test_returns_to_the_first_after_the_time_and_not_before() -> None:
    clock = FakeClock()
    mirrors = chain(clock)
    mirrors.switch_from(A)
    clock.advance(99.9)
    assert mirrors.current == B
    clock.advance(0.2)
    assert mirrors.current == A
    clock.advance(1000)
    assert mirrors.switch_from(A) == B


def test_zero_never_returns() -> None:
    clock = FakeClock()
    mirrors = chain(clock, reset_after=0)
    mirrors.switch_from(A)
    clock.advance(1e9)
    assert mirrors.current == B


def test_replace_begins_anew() -> None:
    mirrors = chain(FakeClock())
    mirrors.switch_from(A)
    mirrors.replace([C + "/", B, C])
    assert mirrors.urls == (C, B)
    assert mirrors.current == C


@pytest.mark.parametrize(
    "urls",
    [
        [],
        ["ftp://a/r"],
        ["a.example.org/cvmfs/r"],
        ["http://"],
        ["http://a:port/"],
        ["http://[::1"],
    ],
)
def test_what_is_no_server_is_refused_and_changes_nothing(urls: list[str]) -> None:
    mirrors = chain(FakeClock())
    with pytest.raises(ConfigError):
        mirrors.replace(urls)
    assert mirrors.urls == (A, B, C)


def test_folders_are_servers_too() -> None:
    assert chain(FakeClock(), "file:///srv/cvmfs/r/").urls == ("file:///srv/cvmfs/r",)


def test_probing_sorts_by_time_and_puts_what_is_down_last() -> None:
    mirrors = chain(FakeClock())
    mirrors.sort_by_probe({A: None, B: 0.5, C: 0.02})
    assert mirrors.urls == (C, B, A)
    assert [(host.state, host.rtt_ms) for host in mirrors.status()] == [
        ("probed", 20.0),
        ("probed", 500.0),
        ("down", None),
    ]


def test_a_server_that_nobody_asked_is_unprobed() -> None:
    states = [host.state for host in chain(FakeClock()).status()]
    assert states == ["unprobed"] * 3


def test_geographic_order_says_so() -> None:
    mirrors = chain(FakeClock())
    mirrors.sort_by_geo((B, A))
    assert mirrors.urls == (B, A)
    assert {host.state for host in mirrors.status()} == {"geographically ordered"}
    assert [host.active for host in mirrors.status()] == [True, False]
