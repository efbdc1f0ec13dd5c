from __future__ import annotations

import os
import random
from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock

from lazyfs.errors import ConfigError
from lazyfs.net.escape import escape_path
from lazyfs.net.failure import FailureClass, Plan, Step
from lazyfs.net.geo import GeoQuestion, parse_reply
from lazyfs.net.mirrors import MirrorChain
from lazyfs.net.proxies import DIRECT, ProxyChain, parse_groups

HOSTS = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z]{2,3})?:[1-9][0-9]{0,3}", fullmatch=True)
MEMBERS = st.one_of(HOSTS, st.just(DIRECT))
GROUPS = st.lists(st.lists(MEMBERS, min_size=1, max_size=4), min_size=1, max_size=4)


@given(st.binary())
def test_escaping_round_trips_any_bytes(name: bytes) -> None:
    escaped = escape_path(os.fsdecode(name))
    assert unquote_to_bytes(escaped) == name
    assert escaped.isascii()
    assert not set(escaped) & set(" \r\n\0?#\"'<>\\")


@given(GROUPS)
def test_proxy_groups_keep_order_and_members(groups: list[list[str]]) -> None:
    spec = ";".join("|".join(group) for group in groups)
    parsed, regular = parse_groups(spec, environ={})
    assert regular == len(parsed)
    assert [[name.removeprefix("http://") for name in group] for group in parsed] == [
        list(dict.fromkeys(group)) for group in groups
    ]


@given(GROUPS, GROUPS)
def test_fallbacks_never_leave_a_direct_connection(
    regular: list[list[str]], fallback: list[list[str]]
) -> None:
    spec, spare = (";".join("|".join(group) for group in side) for side in (regular, fallback))
    groups, count = parse_groups(spec, spare, environ={})
    if any(name != DIRECT for group in fallback for name in group):
        assert not any(DIRECT in group for group in groups)
    else:
        assert count == len(groups)


@given(st.text(max_size=80), st.text(max_size=40))
def test_any_text_gives_groups_or_a_typed_error(spec: str, fallback: str) -> None:
    try:
        groups, regular = parse_groups(spec, fallback, environ={})
    except ConfigError:
        return
    assert groups
    assert all(groups)
    assert 0 <= regular <= len(groups)


@given(st.binary(max_size=60), st.integers(0, 8))
def test_any_geo_reply_is_a_permutation_or_nothing(body: bytes, count: int) -> None:
    order = parse_reply(body, count)
    assert order is None or sorted(order) == list(range(count))


@given(st.permutations(range(7)))
def test_geo_replies_round_trip(order: list[int]) -> None:
    body = ",".join(str(number + 1) for number in order).encode() + b"\n"
    assert parse_reply(body, len(order)) == order


@given(st.data())
def test_a_geo_order_loses_and_invents_nothing(data: st.DataObject) -> None:
    servers = tuple(
        f"http://{name}/cvmfs/r"
        for name in data.draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5))
    )
    fallback = tuple((f"http://f{i}:1",) for i in range(data.draw(st.integers(0, 3))))
    question = GeoQuestion(servers, fallback, by_proxies=data.draw(st.booleans()))
    nearest = data.draw(st.permutations(range(len(question.names()))))
    ordered, groups = question.apply(nearest)
    assert sorted(ordered) == sorted(servers)
    assert sorted(groups) == sorted(fallback)


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 3),
    st.lists(st.sampled_from(FailureClass), min_size=200, max_size=200),
)
def test_every_course_of_failures_ends(
    hosts: int, proxies: int, retries: int, kinds: list[FailureClass]
) -> None:
    plan = Plan(hosts, proxies, retries)
    steps = [plan.next_step(kind) for kind in kinds]
    assert steps.index(Step.GIVE_UP) < hosts * proxies * (retries + 2)


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True), min_size=1),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 50)), max_size=30),
    st.integers(),
    st.booleans(),
)
def test_there_is_always_a_current_proxy_of_the_current_group(
    names: list[list[str]], failures: list[tuple[str, float]], seed: int, shard: bool
) -> None:
    groups = tuple(tuple(group) for group in names)
    clock = FakeClock()
    chain = ProxyChain(
        groups, len(groups), reset_after=100, clock=clock, rng=random.Random(seed), shard=shard
    )
    for failed, seconds in failures:
        clock.advance(seconds)
        chain.switch_from(failed, path=failed)
        group = groups[chain.status().current_group]
        assert chain.current in group
        assert chain.pick("data/x") in group


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True),
    st.lists(st.sampled_from("abcdef"), max_size=20),
)
def test_a_trip_over_all_servers_meets_each_once(names: list[str], others: list[str]) -> None:
    chain = MirrorChain([f"http://{n}" for n in names], reset_after=0, clock=FakeClock())
    tried = [chain.current]
    for other in [*others, *[""] * len(names)][: len(names) - 1]:
        chain.switch_from(f"http://{other}")
        tried.append(chain.switch_from(tried[-1], tried))
    assert len(set(tried)) == len(names)
