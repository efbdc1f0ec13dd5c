"""Object stores that are away, busy, full, slow, confused or killed."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import s3_proxy
from support.s3_proxy import Exchange, Fault, S3Proxy, refuse
from support.s3_server import NAMES, QUICK, S3Server, running

from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.cas.origin import open_uncached
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import PublishError
from lazyfs.net import patient_pool
from lazyfs.net.patient_pool import Patience
from lazyfs.publish.s3_exchange import PART_SIZE, WHOLE_SIZE
from lazyfs.publish.s3_target import ONE_REQUEST_SIZE, S3Target

PATH = "data/ab/cdef"
SHORT = replace(QUICK, attempts=2, connect=0.15, answer=0.15)


class Place:
    """A target behind a proxy, and the same without one."""

    def __init__(self, server: S3Server, proxy: S3Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self.bucket = server.new_bucket()
        self.direct = server.target(self.bucket, "x")
        self.target = self.at(QUICK)
        # The region is asked for once, not in the middle of what is tested.
        assert not self.target.has("data/00/none")
        proxy.seen.clear()

    def at(self, patience: Patience) -> S3Target:
        """Another target behind the proxy."""
        return self.server.target(
            self.bucket, "x", port=self.proxy.port, patience=patience, options="&region=us-east-1"
        )


@pytest.fixture
def place(s3_server: S3Server) -> Iterator[Place]:
    with S3Proxy(s3_server.port) as proxy:
        yield Place(s3_server, proxy)


def put(target: S3Target, content: bytes, path: str = PATH) -> bool:
    upload = target.upload()
    upload.write(content)
    return upload.commit(path)


def read(target: S3Target, path: str) -> bytes | None:
    document = target.read(path)
    return document.content if document is not None else None


def named(fault: Fault) -> str:
    return getattr(fault, "__name__", "")


Use = Callable[[S3Target], object]

USES: dict[str, Use] = {
    "has": lambda target: target.has(PATH),
    "small": lambda target: put(target, b"x"),
    "large": lambda target: put(target, bytes(ONE_REQUEST_SIZE + 1)),
    "parts": lambda target: put(target, bytes(WHOLE_SIZE + 1)),
    "list": lambda target: list(target.objects()),
    "remove": lambda target: target.remove([PATH]),
    "read": lambda target: target.read("x"),
    "replace": lambda target: target.replace("x", b"y"),
    "replace_if": lambda target: target.replace_if("x", b"y", None),
    "prepare": lambda target: target.prepare(),
}

SLOW = r"cannot be reached: (no answer in time|the transfer stalled)"

by_proxy = pytest.mark.parametrize("s3_server", ["moto"], indirect=True)
"""The proxy alone answers: which server stands behind it does not matter."""

every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


# --- what passes ---------------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "SlowDown": refuse(503, "SlowDown"),
    "InternalError": refuse(500, "InternalError"),
    "RequestTimeout": refuse(400, "RequestTimeout"),
    "TooManyRequests": refuse(429, "TooManyRequests"),
    "gateway": s3_proxy.page(502),
    "hang_up": s3_proxy.hang_up,
    "garbage": s3_proxy.garbage,
}


@every_use
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_fails_for_a_moment_is_repeated(place: Place, use: Use, fault: Fault) -> None:
    place.direct.replace("x" if use is USES["read"] else "other", b"there")
    # An answer to HEAD has no body that could say so; neither has its request one to wait for.
    upload_only = fault is PASSING["RequestTimeout"]
    place.proxy.strike(fault, lambda e: e.method != "HEAD" or not upload_only, times=2)
    use(place.target)


@by_proxy
@every_use
def test_a_server_that_stays_busy_is_given_up(place: Place, use: Use) -> None:
    place.proxy.strike(refuse(503, "SlowDown"), times=None)
    with pytest.raises(PublishError, match=r"cannot be reached: .*HTTP 503.*publish again"):
        use(place.target)
    methods = {seen.partition(" ")[0] for seen in place.proxy.seen}
    assert all(place.proxy.count(method) <= 2 * QUICK.attempts for method in methods)
    assert any(place.proxy.count(method) >= QUICK.attempts for method in methods)


@pytest.mark.parametrize("size", [10, ONE_REQUEST_SIZE + 1, WHOLE_SIZE + 1])
@pytest.mark.parametrize("fault", [s3_proxy.obey_silently, s3_proxy.hang_up], ids=named)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_an_upload_survives_lost_answers(
    place: Place, size: int, fault: Fault, method: str
) -> None:
    """Each PUT, or the beginning and end of an upload in parts, is repeated and counted once."""
    content = os.urandom(size)
    place.proxy.strike(fault, lambda exchange: exchange.method == method, times=3)
    assert put(place.target, content)
    assert read(place.direct, PATH) == content
    assert [item.size for item in place.direct.objects()] == [size]


@pytest.mark.parametrize("fault", [s3_proxy.obey_silently, s3_proxy.hang_up], ids=named)
def test_the_end_of_an_upload_in_parts_may_be_asked_for_again(place: Place, fault: Fault) -> None:
    content = os.urandom(WHOLE_SIZE + 1)
    place.proxy.strike(fault, lambda e: e.method == "POST" and "uploadId" in e.query, times=2)
    assert put(place.target, content)
    assert read(place.direct, PATH) == content
    # No part has travelled twice.
    assert place.proxy.count("PUT") == 3


def test_an_end_with_an_error_in_its_answer_is_repeated(place: Place) -> None:
    content = os.urandom(WHOLE_SIZE + 1)
    place.proxy.strike(
        refuse(200, "InternalError"), lambda e: e.method == "POST" and "uploadId" in e.query
    )
    assert put(place.target, content)
    assert read(place.direct, PATH) == content


def test_an_upload_that_does_not_end_is_an_error(place: Place) -> None:
    place.proxy.strike(
        refuse(200, "InternalError"),
        lambda e: e.method == "POST" and "uploadId" in e.query,
        times=None,
    )
    with pytest.raises(PublishError, match="did not end the upload"):
        put(place.target, bytes(WHOLE_SIZE + 1))
    assert not place.direct.has(PATH)


def test_a_body_that_is_cut_is_fetched_again(place: Place) -> None:
    content = zlib.compress(os.urandom(300_000))
    digest = Algorithm.SHA1.digest(content)
    put(place.direct, content, digest.object_path(ObjectKind.FILE))
    place.proxy.strike(s3_proxy.cut(100_000), times=2)
    with open_uncached(place.target, ObjectRef(digest)) as handle:
        assert handle.size == 300_000
    assert place.proxy.count("GET") == 3
    place.direct.replace("x", bytes(200_000))
    place.proxy.strike(s3_proxy.cut(1), times=1)
    assert read(place.target, "x") == bytes(200_000)


# --- conditional writes --------------------------------------------------------------------------


def conditional(exchange: Exchange) -> bool:
    return exchange.method == "PUT" and exchange.conditional


@pytest.mark.parametrize("before", [None, b"before"])
@pytest.mark.parametrize("fault", [s3_proxy.obey_silently, s3_proxy.hang_up], ids=named)
def test_an_unanswered_exchange_is_settled(
    place: Place, before: bytes | None, fault: Fault
) -> None:
    version = None if before is None else place.direct.replace_if("x", before, None)
    place.proxy.strike(fault, conditional, times=2)
    new = place.target.replace_if("x", b"mine", version)
    there = place.direct.read("x")
    assert there is not None
    assert (there.content, there.version) == (b"mine", new)


@pytest.mark.parametrize("before", [None, b"before"])
def test_an_unanswered_exchange_that_another_won_is_told(
    place: Place, before: bytes | None
) -> None:
    version = None if before is None else place.direct.replace_if("x", before, None)

    def lose(exchange: Exchange) -> None:
        place.direct.replace("x", b"another's")

    place.proxy.strike(lose, conditional)
    assert place.target.replace_if("x", b"mine", version) is None
    assert read(place.direct, "x") == b"another's"


def test_an_exchange_that_is_obeyed_late_is_settled(place: Place) -> None:
    """The first request gets no answer; it arrives after the document was looked at."""
    version = place.direct.replace_if("x", b"before", None)
    late: list[Exchange] = []

    def arrive(exchange: Exchange) -> None:
        late[0].forward()
        exchange.pass_on()

    place.proxy.strike(late.append, conditional)
    place.proxy.strike(arrive, conditional)
    new = place.target.replace_if("x", b"mine", version)
    there = place.direct.read("x")
    assert there is not None
    assert (there.content, there.version) == (b"mine", new)


def test_a_conflict_is_tried_again(place: Place) -> None:
    place.proxy.strike(refuse(409, "ConditionalRequestConflict"), conditional, times=2)
    assert place.target.replace_if("x", b"mine", None) is not None
    assert read(place.direct, "x") == b"mine"


def test_a_server_that_ignores_conditions_is_refused(place: Place) -> None:
    def ignore(exchange: Exchange) -> None:
        exchange.answer(200, b"", 'ETag: "1234"\r\n')

    place.proxy.strike(ignore, conditional, times=None)
    with pytest.raises(PublishError, match=r"ignores conditions.*use a server that"):
        place.target.prepare()


def test_a_server_that_ignores_one_condition_is_refused(place: Place) -> None:
    def ignore(exchange: Exchange) -> None:
        exchange.answer(200, b"", 'ETag: "1234"\r\n')

    place.proxy.strike(ignore, lambda e: b"\r\nif-match" in e.head.lower(), times=None)
    with pytest.raises(PublishError, match="ignores conditions"):
        place.target.prepare()
    assert list(place.direct.objects()) == []


@by_proxy
def test_a_server_without_conditions_is_refused(place: Place) -> None:
    place.proxy.strike(refuse(501, "NotImplemented"), conditional, times=None)
    with pytest.raises(PublishError, match="use a server that knows conditional writes"):
        place.target.prepare()


# --- what does not pass --------------------------------------------------------------------------

REFUSALS = {
    "NoSuchBucket": (404, r"no such bucket.*mc mb"),
    "AccessDenied": (403, r"access denied.*s3:PutObject"),
    "InvalidAccessKeyId": (403, "does not know the access key"),
    "SignatureDoesNotMatch": (403, "does not belong to the access key"),
    "ExpiredToken": (400, "have expired"),
    "RequestTimeTooSkewed": (403, r"clock.*set the clock"),
    "PermanentRedirect": (301, r"region.*\?region="),
    "AuthorizationHeaderMalformed": (400, r"region.*\?region="),
    "XMinioStorageFull": (507, r"no room.*make room"),
    "XMinioAdminBucketQuotaExceeded": (400, r"quota.*make room"),
    "MethodNotAllowed": (405, "does not allow"),
    "SomethingNew": (418, r"SomethingNew: said the proxy.*publish again"),
}


@by_proxy
@pytest.mark.parametrize("code", REFUSALS)
def test_refusals_say_what_to_do(place: Place, code: str) -> None:
    status, message = REFUSALS[code]
    place.proxy.strike(refuse(status, code), lambda e: e.method != "HEAD", times=None)
    for name in ("small", "large", "parts", "list", "remove", "read", "replace", "replace_if"):
        with pytest.raises(PublishError, match=message):
            USES[name](place.target)
    # None of them is worth a second try.
    assert len(place.proxy.seen) == 10


@by_proxy
def test_what_a_server_says_stays_one_line(place: Place) -> None:
    place.proxy.strike(refuse(400, "Odd", "two\nlines\u2028" + "x" * 1000))
    with pytest.raises(PublishError) as caught:
        place.target.read("x")
    assert "two?lines?xx" in str(caught.value)
    assert len(str(caught.value)) < 700


@by_proxy
def test_keys_that_are_not_removed_are_an_error(place: Place) -> None:
    answer = (
        "<DeleteResult><Error><Key>x/data/00/b</Key><Code>AccessDenied</Code>"
        "<Message>no</Message></Error></DeleteResult>"
    )
    place.proxy.strike(
        lambda e: e.answer(200, answer.encode(), "Content-Type: application/xml\r\n"),
        lambda e: e.method == "POST",
    )
    with pytest.raises(PublishError, match=r"access denied.*x/data/00/b"):
        place.target.remove(["data/00/a", "data/00/b"])


NO_STORES: dict[str, Fault] = {
    "page": s3_proxy.page(200),
    "not found": s3_proxy.page(404),
    "forbidden": s3_proxy.page(403),
    "empty": s3_proxy.page(200, b""),
    "text": lambda exchange: exchange.answer(200, b"\xff\xfe", ""),
    "redirect": lambda exchange: exchange.answer(302, b"", "Location: http://host.invalid/\r\n"),
    "bad xml": lambda exchange: exchange.answer(
        403, b"<Error><Co", "Content-Type: application/xml\r\n"
    ),
    "other xml": lambda exchange: exchange.answer(
        200, b"<a><b/></a>", "Content-Type: application/xml\r\nETag: \r\n"
    ),
}


@by_proxy
@every_use
@pytest.mark.parametrize("fault", NO_STORES.values(), ids=NO_STORES)
def test_a_server_that_is_no_object_store_is_no_traceback(
    place: Place, use: Use, fault: Fault
) -> None:
    place.proxy.strike(fault, times=None)
    try:
        use(place.at(SHORT))
    except PublishError as exc:
        assert exc.hint or exc.url  # noqa: PT017 - some requests cannot tell and succeed


@by_proxy
def test_a_web_server_is_told_from_an_object_store(place: Place) -> None:
    place.proxy.strike(s3_proxy.page(404), times=None)
    with pytest.raises(PublishError, match="not S3's"):
        place.target.read("x")
    with pytest.raises(PublishError, match="not S3's"):
        put(place.target, b"x")


@by_proxy
@pytest.mark.parametrize(
    "fault", [s3_proxy.page(200), lambda e: e.client.sendall(b"HTTP/1.1 200 OK\r\nServer: x")]
)
def test_an_answer_without_an_etag_tells_nothing(place: Place, fault: Fault) -> None:
    place.proxy.strike(fault, times=None)
    for use in (lambda: place.target.has(PATH), lambda: place.target.read("x")):
        with pytest.raises(PublishError, match=r"no ETag.*an object store\?"):
            use()


# --- bounds --------------------------------------------------------------------------------------


@by_proxy
@every_use
@pytest.mark.parametrize("fault", [s3_proxy.stall, s3_proxy.drip], ids=named)
def test_every_wait_ends(place: Place, use: Use, fault: Fault) -> None:
    place.proxy.strike(fault, times=None)
    start = time.monotonic()
    with pytest.raises(PublishError, match=SLOW):
        use(place.at(SHORT))
    # Twice what two attempts of two requests may take: an upload that failed is given back.
    assert time.monotonic() - start < 20


def test_a_body_that_stalls_is_given_up(place: Place) -> None:
    content = os.urandom(300_000)
    digest = Algorithm.SHA1.digest(content)
    put(place.direct, content, digest.object_path(ObjectKind.FILE))

    def stall_in_body(exchange: Exchange) -> None:
        exchange.client.sendall(exchange.forward()[:100_000])
        exchange.closed.wait()

    place.proxy.strike(stall_in_body, times=None)
    with pytest.raises(PublishError, match=SLOW):
        open_uncached(place.at(SHORT), ObjectRef(digest))
    assert place.proxy.count("GET") == SHORT.attempts


@by_proxy
def test_answers_have_a_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_pool, "ANSWER_LIMIT", 1 << 20)
    place.proxy.strike(s3_proxy.endless, times=None)
    with pytest.raises(PublishError, match="the answer has more than 1048576 bytes"):
        list(place.target.objects())


# --- servers that die ----------------------------------------------------------------------------


@pytest.fixture(params=NAMES)
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[S3Server]:
    with running(request.param, tmp_path / "server") as server:
        yield server


def test_a_server_that_is_killed_during_an_upload_is_a_clear_error(mortal: S3Server) -> None:
    with S3Proxy(mortal.port) as proxy:
        place = Place(mortal, proxy)
        proxy.strike(s3_proxy.meanwhile(mortal.kill), lambda e: "partNumber=2" in e.query)
        with pytest.raises(PublishError, match=r"cannot be reached.*publish again"):
            put(place.target, bytes(3 * PART_SIZE))
        assert any("partNumber=1" in seen for seen in proxy.seen)
        for name in ("read", "small", "list", "replace_if", "remove"):
            with pytest.raises(PublishError, match="cannot be reached"):
                USES[name](place.target)


def test_an_upload_that_was_broken_off_is_not_there(place: Place) -> None:
    place.proxy.strike(s3_proxy.hang_up, lambda e: "partNumber=2" in e.query, times=None)
    with pytest.raises(PublishError):
        put(place.target, bytes(3 * PART_SIZE))
    assert not place.direct.has(PATH)
    assert list(place.direct.objects()) == []
    assert put(place.direct, b"later")
