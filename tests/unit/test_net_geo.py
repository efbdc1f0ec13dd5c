from __future__ import annotations

import pytest

from lazyfs.net.geo import GeoQuestion, parse_reply

SERVERS = ("http://s2.org:8000/cvmfs/r", "http://s1.org/cvmfs/r", "http://s3.org/cvmfs/r")
FALLBACK = (("http://f1.org:3128", "http://f1b.org:3128"), ("http://f2.org:3128",))


def test_servers_are_sorted_so_that_caches_can_share_the_reply() -> None:
    assert GeoQuestion(SERVERS).path("me.org") == "api/v1.0/geo/me.org/s1.org,s2.org,s3.org"


def test_servers_take_the_order_of_the_reply() -> None:
    servers, _ = GeoQuestion(SERVERS).apply([2, 0, 1])
    assert [url[7:9] for url in servers] == ["s3", "s1", "s2"]


def test_servers_of_one_host_keep_their_order() -> None:
    urls = ("http://b/cvmfs/x", "http://a/cvmfs/x", "http://b/mirror/x")
    assert GeoQuestion(urls).apply([1, 0])[0] == (urls[0], urls[2], urls[1])


def test_fallback_groups_are_named_by_their_first_proxy_and_ordered_too() -> None:
    question = GeoQuestion(SERVERS, FALLBACK)
    assert question.names() == ["s1.org", "s2.org", "s3.org", "f1.org", "f2.org"]
    servers, groups = question.apply([4, 0, 3, 1, 2])
    assert [url[7:9] for url in servers] == ["s1", "s2", "s3"]
    assert groups == (FALLBACK[1], FALLBACK[0])


def test_with_only_fallback_proxies_a_separator_is_named_and_skipped() -> None:
    question = GeoQuestion(SERVERS, FALLBACK, by_proxies=True)
    assert question.names()[3] == "+PXYSEP+"
    servers, groups = question.apply([5, 3, 2, 4, 0, 1])
    assert [url[7:9] for url in servers] == ["s3", "s1", "s2"]
    assert groups == (FALLBACK[1], FALLBACK[0])


@pytest.mark.parametrize(
    ("question", "worthwhile"),
    [
        (GeoQuestion(SERVERS), True),
        (GeoQuestion(SERVERS[:1]), False),
        (GeoQuestion(SERVERS[:1], FALLBACK[:1]), False),
        (GeoQuestion(SERVERS[:1], FALLBACK), True),
        (GeoQuestion(("http://a/x", "http://a/y")), False),
    ],
)
def test_nothing_is_asked_where_nothing_can_change(question: GeoQuestion, worthwhile: bool) -> None:
    assert question.worthwhile is worthwhile


@pytest.mark.parametrize("body", [b"2,1,3", b"2,1,3\n", b" 2,1,3 \n"])
def test_a_permutation_is_taken(body: bytes) -> None:
    assert parse_reply(body, 3) == [1, 0, 2]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1,2",
        b"1,2,3,4",
        b"1,1,3",
        b"0,1,2",
        b"1,2,x",
        b"1,2,-3",
        b"1,2,+3",
        b"1,2,3.0",
        b"1, 2,3",
        b"1_,2,3",
        b"\xff",
        b"<html>",
        b"1,2," + b"9" * 5000,
        "1,2,\N{SUPERSCRIPT THREE}".encode(),
    ],
)
def test_anything_else_is_none(body: bytes) -> None:
    assert parse_reply(body, 3) is None
