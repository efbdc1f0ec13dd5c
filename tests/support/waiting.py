"""Waiting for what another task, thread or process brings about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import trio.lowlevel


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Let other tasks run until the condition holds; `trio.TooSlowError` if it never does."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.lowlevel.checkpoint()


def wait_until(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Look again and again: nothing tells of what another process does."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        pause.wait(0.02)
