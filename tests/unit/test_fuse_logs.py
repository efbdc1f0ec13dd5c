from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazyfs.errors import ConfigError
from lazyfs.fuse import logs
from lazyfs.fuse.logs import LogTarget, set_up_logging


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("lazyfs")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield logger
    for handler in logger.handlers:
        handler.close()
    logger.level, logger.propagate, logger.handlers = before[0], before[1], before[2]


def test_lines_in_a_file_tell_time_level_and_repository(
    tmp_path: Path, logger: logging.Logger
) -> None:
    set_up_logging("data.example.org", LogTarget(file=tmp_path / "log"))
    logger.getChild("net").warning("server gone")
    logger.debug("not this")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("WARNING (data.example.org) server gone")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the log") as caught:
        set_up_logging("data.example.org", LogTarget(file=tmp_path / "no" / "log"))
    assert str(tmp_path) in str(caught.value)


def test_syslog_may_come_and_go(
    tmp_path: Path,
    logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "syslog"
    monkeypatch.setattr(logs, "SYSLOG_SOCKET", path)
    set_up_logging("data.example.org", LogTarget())
    logger.error("nobody listens yet")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(5)
        logger.error("heard")
        assert b"]: (data.example.org) heard" in daemon.recv(1000)
    path.unlink()
    logger.error("nobody listens any more")
    assert capfd.readouterr().err == ""
