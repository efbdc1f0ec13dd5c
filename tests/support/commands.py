"""The command line for tests: the real program in a process of its own."""

from __future__ import annotations

import subprocess

from support.mounts import LAZYFS


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
