"""Waiting for what another task or thread brings about."""

from __future__ import annotations

from collections.abc import Callable

import trio.lowlevel


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Let other tasks run until the condition holds; `trio.TooSlowError` if it never does."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.lowlevel.checkpoint()
