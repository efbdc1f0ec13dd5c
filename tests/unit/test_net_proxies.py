from __future__ import annotations

import random

import pytest
from support.clock import FakeClock

from lazyfs.errors import ConfigError
from lazyfs.net.proxies import DIRECT, Groups, ProxyChain, parse_groups

P1, P2, Q1, Q2 = (f"http://{name}:3128" for name in ("p1", "p2", "q1", "q2"))


@pytest.mark.parametrize(
    ("spec", "groups"),
    [
        ("DIRECT", ((DIRECT,),)),
        ("p1:3128", ((P1,),)),
        ("http://p1:3128/", ((P1,),)),
        (f"{P1}|{P2};DIRECT", ((P1, P2), (DIRECT,))),
        (f" {P1} | {P2} ;; | ;{Q1};", ((P1, P2), (Q1,))),
        (f"{P1}|{P1}", ((P1,),)),
        ("https://p1:443", (("https://p1:443",),)),
        ("direct", (("http://direct",),)),
    ],
)
def test_groups_as_written(spec: str, groups: Groups) -> None:
    assert parse_groups(spec, environ={}) == (groups, len(groups))


@pytest.mark.parametrize(
    "spec", ["", ";", " | ", "socks5://p:1", "http://", "http://p:x", "p:99999", "auto"]
)
def test_nothing_usable_is_an_error_and_not_direct(spec: str) -> None:
    with pytest.raises(ConfigError):
        parse_groups(spec, environ={})


def test_any_fallback_takes_direct_out_of_both_lists() -> None:
    assert parse_groups(f"{P1};DIRECT", f"{Q1}|DIRECT;DIRECT", environ={}) == (((P1,), (Q1,)), 1)


def test_a_fallback_of_only_direct_is_none() -> None:
    assert parse_groups("DIRECT", "DIRECT", environ={}) == (((DIRECT,),), 1)


def test_fallback_proxies_alone_will_do() -> None:
    assert parse_groups("DIRECT", P1, environ={}) == (((P1,),), 0)


def test_auto_is_what_the_environment_names() -> None:
    groups, _ = parse_groups("auto;DIRECT", environ={"http_proxy": "p1:3128"})
    assert groups == ((P1,), (DIRECT,))


def test_auto_without_a_name_is_left_out() -> None:
    assert parse_groups(f"auto;{P1}", environ={}) == (((P1,),), 1)


def test_the_environment_is_not_asked_without_auto() -> None:
    assert parse_groups("DIRECT", environ={"http_proxy": P1}) == (((DIRECT,),), 1)


def chain(
    clock: FakeClock, groups: Groups, *, reset_after: float = 100.0, shard: bool = False
) -> ProxyChain:
    return ProxyChain(
        groups,
        len(groups),
        reset_after=reset_after,
        clock=clock,
        rng=random.Random(1),
        shard=shard,
    )


def test_members_share_the_load() -> None:
    first = {
        ProxyChain(
            ((P1, P2),), 1, reset_after=0, clock=FakeClock(), rng=random.Random(seed)
        ).current
        for seed in range(20)
    }
    assert first == {P1, P2}


def test_a_burned_proxy_is_set_aside_within_its_group() -> None:
    proxies = chain(FakeClock(), ((P1, P2), (Q1,)))
    first = proxies.current
    second = proxies.switch_from(first)
    assert {first, second} == {P1, P2}
    assert proxies.switch_from(first) == second
    assert proxies.switch_from(second) == Q1
    assert proxies.status().current_group == 1


def test_after_the_last_group_comes_the_first_unburned() -> None:
    proxies = chain(FakeClock(), ((P1,), (Q1,)))
    assert proxies.switch_from(P1) == Q1
    assert proxies.switch_from(Q1) == P1


def test_a_single_proxy_stays() -> None:
    proxies = chain(FakeClock(), ((P1,),))
    assert [proxies.switch_from(P1) for _ in range(3)] == [P1] * 3


def test_a_transfer_is_not_sent_back_to_what_it_has_tried() -> None:
    proxies = chain(FakeClock(), ((P1,), (Q1,), (Q2,)))
    proxies.switch_from(P1)
    proxies.switch_from(Q1)
    assert proxies.switch_from(Q2, {P1, Q2}) == Q1


@pytest.mark.parametrize("groups", [((P1,), (Q1,)), ((P1, Q1),)])
def test_returns_to_the_first_choice_after_the_time(groups: Groups) -> None:
    clock = FakeClock()
    proxies = chain(clock, groups)
    while proxies.current != P1:
        proxies.rebalance()
    assert proxies.switch_from(P1) == Q1
    clock.advance(99)
    assert proxies.current == Q1
    clock.advance(2)
    seen = {proxies.current}
    for _ in range(20):
        proxies.rebalance()
        seen.add(proxies.current)
    assert P1 in seen
    assert proxies.status().current_group == 0


def test_zero_never_returns() -> None:
    clock = FakeClock()
    proxies = chain(clock, ((P1,), (Q1,)), reset_after=0)
    proxies.switch_from(P1)
    clock.advance(1e9)
    assert proxies.current == Q1


PATHS = [f"data/{i:02x}/{i * 7919:038x}" for i in range(256)]


def test_sharding_gives_each_member_a_share_and_each_object_one_member() -> None:
    proxies = chain(FakeClock(), ((P1, P2, Q1),), shard=True)
    shares = [proxies.pick(path) for path in PATHS]
    assert shares == [proxies.pick(path) for path in PATHS]
    assert min(shares.count(proxy) for proxy in (P1, P2, Q1)) > len(PATHS) // 10


def test_losing_a_shard_moves_only_what_it_held() -> None:
    proxies = chain(FakeClock(), ((P1, P2, Q1),), shard=True)
    before = {path: proxies.pick(path) for path in PATHS}
    lost = next(path for path, proxy in before.items() if proxy == P2)
    assert proxies.switch_from(P2, {P2}, path=lost) in {P1, Q1}
    after = {path: proxies.pick(path) for path in PATHS}
    assert {proxy for path, proxy in after.items() if before[path] == P2} == {P1, Q1}
    assert all(after[path] == proxy for path, proxy in before.items() if proxy != P2)
