from __future__ import annotations

from lazyfs.errors import AllMirrorsFailed, HashMismatch, LazyfsError, ObjectMissing, Timeout
from lazyfs.net.failure import Failure, FailureClass
from lazyfs.net.verdict import Verdict

MISSING = Failure(FailureClass.HOST_HTTP, "HTTP 404", status=404)
BAD = Failure(FailureClass.BAD_DATA, "bad", cause=HashMismatch("wrong digest"))
REFUSED = Failure(FailureClass.HOST_CONNECTION, "Connection refused")
SLOW = Failure(FailureClass.HOST_SLOW, "stalled")


def error_of(*failures: tuple[str, Failure], late: bool = False) -> LazyfsError:
    verdict = Verdict("data/ab/cd")
    for host, failure in failures:
        verdict.add(host, f"{host}/data/ab/cd", failure)
    return verdict.error(late=late)


def test_missing_everywhere() -> None:
    error = error_of(("http://a", MISSING), ("http://b", MISSING))
    assert isinstance(error, ObjectMissing)
    assert error.object == "data/ab/cd"


def test_missing_in_one_place_and_unreachable_in_another_may_still_exist() -> None:
    assert isinstance(error_of(("http://a", MISSING), ("http://b", REFUSED)), AllMirrorsFailed)


def test_only_the_last_word_of_a_server_counts() -> None:
    assert isinstance(error_of(("http://a", REFUSED), ("http://a", MISSING)), ObjectMissing)


def test_bad_data_everywhere_is_told_as_it_is() -> None:
    assert error_of(("http://a", BAD), ("http://b", BAD)) is BAD.cause


def test_bad_data_here_and_nothing_there() -> None:
    assert error_of(("http://a", BAD), ("http://b", MISSING)) is BAD.cause


def test_bad_data_here_and_nobody_there_is_a_matter_of_the_network() -> None:
    assert isinstance(error_of(("http://a", BAD), ("http://b", REFUSED)), AllMirrorsFailed)


def test_all_slow_is_a_timeout() -> None:
    assert isinstance(error_of(("http://a", SLOW), ("http://b", SLOW)), Timeout)


def test_the_deadline_is_a_timeout_whatever_failed() -> None:
    assert isinstance(error_of(("http://a", REFUSED), late=True), Timeout)


def test_each_server_is_named_with_its_reason_and_no_password() -> None:
    error = error_of(("http://u:secret@a", REFUSED), ("http://b", SLOW))
    assert "http://a: cannot connect to the server: Connection refused" in str(error)
    assert "http://b: server too slow: stalled" in str(error)
    assert "secret" not in str(error)
