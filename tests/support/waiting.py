"""Waiting for what another task, thread or process brings about."""

from __future__ import annotations

import threading
from collections.abc import Callable

import trio.lowlevel


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Let other tasks run until the condition holds; `trio.TooSlowError` if it never does."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.lowlevel.checkpoint()


def wait_until(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Look ten times a second: nothing tells of what another process does."""
    pause = threading.Event()
    for _ in range(int(seconds * 10)):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError("it never happened")
