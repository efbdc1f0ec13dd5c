from __future__ import annotations

import random

import pytest

from lazyfs.net.failure import Failure, FailureClass, Plan, Step, pause

TRANSIENT = [kind for kind in FailureClass if kind.may_repeat]
LASTING = [FailureClass.HOST_HTTP, FailureClass.PROXY_HTTP]


def test_only_connection_slow_and_short_failures_may_pass() -> None:
    assert {kind.name for kind in TRANSIENT} == {
        f"{who}_{what}" for who in ("HOST", "PROXY") for what in ("CONNECTION", "SLOW", "SHORT")
    }


@pytest.mark.parametrize("kind", TRANSIENT)
def test_transient_failure_repeats_the_url_as_often_as_allowed(kind: FailureClass) -> None:
    plan = Plan(hosts=2, proxies=1, max_retries=2)
    assert [plan.next_step(kind) for _ in range(3)] == [Step.REPEAT, Step.REPEAT, Step.NEXT_HOST]


def test_retries_count_anew_for_each_host() -> None:
    plan = Plan(hosts=2, proxies=1, max_retries=1)
    steps = [plan.next_step(FailureClass.HOST_SLOW) for _ in range(4)]
    assert steps == [Step.REPEAT, Step.NEXT_HOST, Step.REPEAT, Step.GIVE_UP]


@pytest.mark.parametrize("kind", LASTING)
def test_error_pages_are_not_repeated(kind: FailureClass) -> None:
    assert Plan(hosts=1, proxies=1, max_retries=5).next_step(kind) is Step.GIVE_UP


def test_bad_data_is_asked_for_past_caches_once_for_each_host() -> None:
    plan = Plan(hosts=2, proxies=1, max_retries=1)
    steps = [plan.next_step(FailureClass.BAD_DATA) for _ in range(4)]
    assert steps == [Step.REPEAT_NO_CACHE, Step.NEXT_HOST, Step.REPEAT_NO_CACHE, Step.GIVE_UP]


def test_no_cache_is_asked_only_for_the_repetition() -> None:
    plan = Plan(hosts=2, proxies=1, max_retries=1)
    assert not plan.past_caches
    plan.next_step(FailureClass.BAD_DATA)
    assert plan.past_caches
    plan.next_step(FailureClass.BAD_DATA)
    assert not plan.past_caches


def test_a_repetition_past_caches_is_not_repeated_for_slowness() -> None:
    plan = Plan(hosts=2, proxies=1, max_retries=3)
    plan.next_step(FailureClass.BAD_DATA)
    assert plan.next_step(FailureClass.HOST_SLOW) is Step.NEXT_HOST


def test_a_proxy_failure_tries_the_other_proxies_before_the_other_hosts() -> None:
    plan = Plan(hosts=2, proxies=3, max_retries=0)
    steps = [plan.next_step(FailureClass.PROXY_CONNECTION) for _ in range(6)]
    round_of_proxies = [Step.NEXT_PROXY, Step.NEXT_PROXY]
    assert steps == [*round_of_proxies, Step.NEXT_HOST, *round_of_proxies, Step.GIVE_UP]


def test_a_host_failure_does_not_use_up_proxies() -> None:
    plan = Plan(hosts=3, proxies=2, max_retries=0)
    assert plan.next_step(FailureClass.HOST_HTTP) is Step.NEXT_HOST
    assert plan.next_step(FailureClass.PROXY_SHORT) is Step.NEXT_PROXY


def test_first_pause_is_anywhere_below_the_initial_one() -> None:
    rng = random.Random(7)
    pauses = [pause(1, 2.0, 10.0, rng) for _ in range(1000)]
    assert min(pauses) < 0.1
    assert 1.9 < max(pauses) <= 2.0


def test_pauses_double_up_to_the_longest() -> None:
    upper = [max(pause(n, 2.0, 10.0, random.Random(i)) for i in range(500)) for n in range(1, 6)]
    assert upper[1] == pytest.approx(4.0, rel=0.05)
    assert upper[2] == pytest.approx(8.0, rel=0.05)
    assert upper[3:] == [10.0, 10.0]


def test_what_a_server_says_stays_one_printable_line() -> None:
    failure = Failure(FailureClass.HOST_HTTP, "no\r\nJun 1 host sshd: \x1b[2Jfake")
    assert str(failure).isprintable()
