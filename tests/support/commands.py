"""The command line for tests: in a process of its own, or faster in the test's own."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lazyfs.cli import main
from support.mounts import LAZYFS


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()


def invoke(*arguments: str) -> Done:
    """Run ``lazyfs`` to its end within this process."""
    out, err = io.BytesIO(), io.StringIO()
    wrapped = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
    code: object = 0
    with contextlib.redirect_stdout(wrapped), contextlib.redirect_stderr(err):
        try:
            main.run(list(arguments))
        except SystemExit as exc:
            code = exc.code
    wrapped.flush()
    assert isinstance(code, int | None)
    return Done(code or 0, out.getvalue(), err.getvalue())


def invoke_ok(*arguments: str) -> Done:
    """Run ``lazyfs`` within this process; it must succeed."""
    done = invoke(*arguments)
    assert done.code == 0, done.err
    return done


def run(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``lazyfs`` to its end."""
    return subprocess.run(
        [*LAZYFS, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def run_ok(*arguments: str) -> str:
    """Run ``lazyfs``, which must succeed; what it printed."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_as_nobody(*arguments: str, reach: Path) -> subprocess.CompletedProcess[str]:
    """Run ``lazyfs`` as a user without rights, for whom the way to ``reach`` is opened.

    Skips the test where that is not possible.
    """
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    if subprocess.run([*become, sys.executable, "-c", "import lazyfs"], check=False).returncode:
        pytest.skip(f"{sys.executable} cannot be run by other users")
    for folder in (reach, *reach.parents):  # pytest's own folders are closed to other users
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    return subprocess.run(
        [*become, *LAZYFS, *arguments], capture_output=True, text=True, check=False
    )
