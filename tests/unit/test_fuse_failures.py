from __future__ import annotations

import logging

import pytest
from support.clock import FakeClock

from lazyfs.errors import HashMismatch, ObjectMissing
from lazyfs.fuse.failures import QUIET_SECONDS, REMEMBERED, FailureLog
from lazyfs.fuse.statistics import Statistics


@pytest.fixture
def statistics() -> Statistics:
    return Statistics()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def failures(statistics: Statistics, clock: FakeClock) -> FailureLog:
    return FailureLog(statistics, clock, lambda: 1234.5)


def test_a_failure_is_one_line_with_path_object_and_server(
    failures: FailureLog, statistics: Statistics, caplog: pytest.LogCaptureFixture
) -> None:
    error = HashMismatch("wrong bytes", object="abcd", url="http://server/data/ab/cd")
    failures.report("read", b"/usr/lib/x\xff", error)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "EIO on /usr/lib/x\\xff (read): wrong bytes (object abcd, url http://server/data/ab/cd)"
    )
    assert statistics.errors == 1
    assert statistics.last_error == 1234


def test_repetitions_are_counted_not_logged(
    failures: FailureLog,
    statistics: Statistics,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(5):
        failures.report("read", b"/a", ObjectMissing("gone"))
    assert len(caplog.records) == 1
    assert statistics.errors == 5
    clock.advance(QUIET_SECONDS + 1)
    failures.report("read", b"/a", ObjectMissing("gone"))
    assert caplog.records[-1].getMessage().endswith("(4 more since the last line)")


def test_other_paths_and_other_errors_have_their_own_lines(
    failures: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    failures.report("read", b"/a", ObjectMissing("gone"))
    failures.report("read", b"/b", ObjectMissing("gone"))
    failures.report("read", b"/a", HashMismatch("bad"))
    assert len(caplog.records) == 3


def test_memory_is_bounded(failures: FailureLog, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(REMEMBERED + 1):
        failures.report("read", b"/%d" % number, ObjectMissing("gone"))
    failures.report("read", b"/1", ObjectMissing("gone"))
    assert len(caplog.records) == REMEMBERED + 1
    failures.report("read", b"/0", ObjectMissing("gone"))
    assert len(caplog.records) == REMEMBERED + 2
