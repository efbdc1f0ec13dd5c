"""The demonstration that a newcomer runs first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from lazyfs.fuse.mountinfo import mounts

ROOT = Path(__file__).parents[2]


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def assert_nothing_is_left(folder: Path) -> None:
    assert not list(folder.iterdir())
    assert not [mount for mount in mounts() if str(mount.mountpoint).startswith(str(folder))]


def test_it_runs_and_cleans_up(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "VERSION is now 2; the file opened before still says 1" in " ".join(output.split())
    assert "run it again, warm" in output
    assert_nothing_is_left(tmp_path)


def test_it_cleans_up_when_it_is_interrupted(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        assert process.stdout is not None
        while "it looks complete" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate()
    assert "everything is cleaned up" in output
    assert "Traceback" not in errors
    assert process.returncode == 130
    assert_nothing_is_left(tmp_path)
