"""Mounts for tests: the real command in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazyfs.fuse.mountinfo import find_mount

COMMAND = (sys.executable, "-m", "lazyfs.cli.main")
END_SECONDS = 20
UNEXPECTED = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|Traceback")


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount that answers."""

    path: Path
    log: Path
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """The mount process."""
        return self.process.pid

    def ctl(self, *command: str) -> Any:
        """The answer of the control socket."""
        done = run("ctl", "--json", str(self.path), *command)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def read_log(self) -> str:
        """All log lines so far."""
        return self.log.read_text()

    def kill(self) -> None:
        """End the process as hard as it goes."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(END_SECONDS)


def run(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``lazyfs`` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def run_ok(*arguments: str) -> str:
    """Run ``lazyfs``, which must succeed; what it printed."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def mounted(
    source: str | Path,
    folder: Path,
    *arguments: str,
    expect: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Mounted]:
    """Mount ``source`` below ``folder`` and unmount it at the end.

    Args:
        source: As for ``lazyfs mount``.
        folder: Gets the mount point ``mnt`` and the log.
        arguments: Further options of ``lazyfs mount``.
        expect: A pattern for log lines of level WARNING and above that are in order.
        environment: Further variables.
    """
    path = folder / "mnt"
    path.mkdir(exist_ok=True)
    log = folder / "mount.log"
    log.touch()
    process = subprocess.Popen(
        [*COMMAND, "mount", "-f", "--log", str(log), *arguments, str(source), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line == "mounted\n", process.stderr.read()
        yield Mounted(path, log, process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(END_SECONDS) == 0, process.stderr.read()
            assert find_mount(path) is None
        check_log(log.read_text(), expect)
    except BaseException:
        print(log.read_text())
        raise
    finally:
        process.kill()
        process.communicate()
        if find_mount(path) is not None:
            subprocess.run(["umount", "-i", "-l", str(path)], check=False)


def check_log(content: str, expect: str | None) -> None:
    """Fail for a line that tells of trouble which was not expected."""
    for line in content.splitlines():
        if UNEXPECTED.search(line) and not (expect and re.search(expect, line)):
            raise AssertionError(f"unexpected in the log: {line}")
