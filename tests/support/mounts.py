"""Real mounts for tests: the real command line in a process of its own, checked at the end.

::

    with mounted(repository.root, pubkey=repository.pubkey, cache=tmp_path / "cache") as mount:
        assert (mount.path / "hello").read_bytes() == b"hello"
        mount.ctl("remount")

At the end the mount must go away cleanly: not busy, exit code 0, nothing left mounted, no
descriptors piled up, and nothing in the log at WARNING or above, nor a traceback, but what
``expect`` declares. When anything fails, the log is printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lazyfs.fuse.control_client import ask
from lazyfs.fuse.mountinfo import FILESYSTEM_TYPE, Mount, mounts
from lazyfs.fuse.registry import MountEntry, Registry

LAZYFS = (sys.executable, "-m", "lazyfs.cli.main")
"""The command line of the package under test."""

READY_SECONDS = 60.0
"""A mount that does not answer by then has failed; a loaded machine needs a few seconds."""

END_SECONDS = 30.0
"""The same for its end."""

SPARE_DESCRIPTORS = 192
"""More than it began with: 64 idle objects are kept open on purpose, and catalogs, connections and
SQLite come on top. A leak in a loop exceeds it."""

_ALARMING = re.compile(r" (WARNING|ERROR|CRITICAL) |^Traceback|^fuse: |^Exception ignored")


@dataclass(slots=True)
class RunningMount:
    """One ``lazyfs mount --foreground``."""

    path: Path
    """The mount point."""
    cache: Path
    log_path: Path
    runtime: Path
    """Where its control socket lies: ``LAZYFS_RUNTIME_DIR``."""
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]
    acknowledged: bool = field(default=False)
    """Whether the test itself waited for the end."""

    @property
    def pid(self) -> int:
        """Of the process that serves the mount."""
        return self.process.pid

    @property
    def entry(self) -> MountEntry:
        """Its entry in the registry."""
        return next(e for e in Registry(self.runtime).entries() if e.pid == self.pid)

    def ctl(self, *command: str, timeout: float = 60.0) -> Any:
        """What the mount answers, as JSON values."""
        return ask(Path(self.entry.socket), command, timeout=timeout)

    def read_log(self) -> str:
        """All that the process has written to standard error so far."""
        return self.log_path.read_text(errors="replace")

    def descriptors(self) -> int:
        """Files that the process has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def is_mounted(self) -> bool:
        """Whether the kernel has a mount there; it is not touched."""
        return any(mount.mountpoint == self.path for mount in lazyfs_mounts())

    def kill(self) -> None:
        """``kill -9``: what is left behind is for the test to look at."""
        self.process.kill()
        self.process.wait(END_SECONDS)
        self.acknowledged = True

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for the end that the test brought about; the exit code."""
        self.acknowledged = True
        return self.process.wait(END_SECONDS)


@contextlib.contextmanager
def mounted(
    source: str | os.PathLike[str],
    *arguments: str,
    pubkey: Path | None = None,
    cache: Path | None = None,
    env: Mapping[str, str] | None = None,
    at: Path | None = None,
    expect: Sequence[str] = (),
) -> Iterator[RunningMount]:
    """A mount that answers; it is unmounted at the end, and everything is checked.

    Args:
        source: A folder, URL or name, as for ``lazyfs mount``.
        arguments: More options for ``lazyfs mount``.
        pubkey: Master key.
        cache: Directory of the cache; a fresh one if None.
        env: Added to the environment.
        at: Where to mount; a fresh directory if None.
        expect: Patterns (searched for) of warnings that may be logged.
    """
    folder = Path(tempfile.mkdtemp(prefix="lazyfs-test-"))
    try:
        mount = _start(folder, source, arguments, pubkey, cache, env or {}, at)
        try:
            _wait_until_ready(mount)
            before = mount.descriptors()
            yield mount
            if not mount.acknowledged:
                _check_descriptors(mount, before)
                _end(mount)
            _check_log(mount, expect)
        except BaseException:
            sys.stderr.write(f"--- log of the mount at {mount.path}\n{mount.read_log()}---\n")
            raise
        finally:
            _sweep(mount)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lazyfs_mounts() -> list[Mount]:
    """All mounts of lazyfs, dead ones included; none is touched."""
    return [mount for mount in mounts() if mount.kind == FILESYSTEM_TYPE]


def detach_lazily(path: Path) -> None:
    """Take away whatever mount is there, dead or alive, as often as needed."""
    while any(mount.mountpoint == path for mount in lazyfs_mounts()):
        command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        subprocess.run([*command, str(path)], check=True, timeout=END_SECONDS)


def _start(
    folder: Path,
    source: str | os.PathLike[str],
    arguments: Sequence[str],
    pubkey: Path | None,
    cache: Path | None,
    env: Mapping[str, str],
    at: Path | None,
) -> RunningMount:
    path = at or folder / "mnt"
    path.mkdir(exist_ok=True)
    cache = cache or folder / "cache"
    runtime = Path({**os.environ, **env}["LAZYFS_RUNTIME_DIR"])
    environment = {**os.environ, **env}
    log_path = folder / "log"
    command = [*LAZYFS, "mount", "--foreground", os.fspath(source), str(path), *arguments]
    command += ["--cache", str(cache)]
    if pubkey is not None:
        command += ["--pubkey", str(pubkey)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
        )
    return RunningMount(path, cache, log_path, runtime, environment, process)


def _wait_until_ready(mount: RunningMount) -> None:
    """Return when the process says that the mount answers; fail when it ends or says nothing."""
    assert mount.process.stdout is not None
    ready = select.select([mount.process.stdout], [], [], READY_SECONDS)[0]
    assert ready, "the mount did not answer in time"
    line = mount.process.stdout.readline()
    if not line:
        raise AssertionError(f"the mount failed with exit code {mount.process.wait(END_SECONDS)}")
    assert line == b"mounted\n"


def _check_descriptors(mount: RunningMount, before: int) -> None:
    assert mount.process.poll() is None, f"the mount ended by itself: {mount.process.returncode}"
    now = mount.descriptors()
    assert now <= before + SPARE_DESCRIPTORS, f"{now} descriptors open, {before} at the start"


def _end(mount: RunningMount) -> None:
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    done = subprocess.run(
        [*command, str(mount.path)], capture_output=True, text=True, timeout=END_SECONDS
    )
    assert done.returncode == 0, f"cannot unmount: {done.stderr}"
    assert mount.wait() == 0, f"exit code {mount.process.returncode}"
    assert not mount.is_mounted(), "something is still mounted"


def _check_log(mount: RunningMount, expect: Sequence[str]) -> None:
    unexpected = [
        line
        for line in mount.read_log().splitlines()
        if _ALARMING.search(line) and not any(re.search(pattern, line) for pattern in expect)
    ]
    assert not unexpected, f"unexpected in the log: {unexpected}"


def _sweep(mount: RunningMount) -> None:
    """Leave nothing behind, whatever happened."""
    if mount.process.poll() is None:
        mount.process.send_signal(signal.SIGKILL)
        mount.process.wait(END_SECONDS)
    if mount.process.stdout is not None:
        mount.process.stdout.close()
    detach_lazily(mount.path)
