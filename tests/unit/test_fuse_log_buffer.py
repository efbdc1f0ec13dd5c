from __future__ import annotations

import logging
import re

import pytest

from lazyfs.fuse.log_buffer import LINES, MAX_LINE, LogBuffer


@pytest.fixture
def log() -> logging.Logger:
    return logging.Logger("test")


def test_the_newest_line_comes_first_with_its_time(log: logging.Logger) -> None:
    buffer = LogBuffer()
    log.addHandler(buffer)
    log.info("one")
    log.error("two %d", 2)
    newest, oldest = buffer.lines()
    assert re.fullmatch(r"\[.+\] two 2", newest)
    assert oldest.endswith("] one")


def test_lines_and_their_number_are_bounded(log: logging.Logger) -> None:
    buffer = LogBuffer()
    log.addHandler(buffer)
    for number in range(LINES + 10):
        log.info("%d%s", number, "x" * MAX_LINE)
    assert len(buffer.lines()) == LINES
    assert all(len(line) <= MAX_LINE for line in buffer.lines())


def test_details_are_not_kept(log: logging.Logger) -> None:
    buffer = LogBuffer()
    log.addHandler(buffer)
    log.debug("detail")
    assert buffer.lines() == []
