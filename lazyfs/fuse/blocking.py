"""Worker threads by purpose: what waits for the network never holds up what is on the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")

DISK_THREADS = 8
"""Reads of the cache in parallel; more only queue in the disk."""

NETWORK_THREADS = 64
"""Fetches of file content in parallel; the downloader bounds the transfers themselves."""

CATALOG_THREADS = 32
"""Requests that wait for catalogs, so that stuck readers of files do not stop ``ls``."""

CONTROL_THREADS = 4
"""Status and housekeeping, so that they answer while all else waits."""

KERNEL_THREADS = 1
"""Notifications to the kernel, which may wait for requests that are being served."""


class Workers:
    """Limiters by name, for one event loop."""

    def __init__(self) -> None:
        self.disk = trio.CapacityLimiter(DISK_THREADS)
        self.network = trio.CapacityLimiter(NETWORK_THREADS)
        self.catalogs = trio.CapacityLimiter(CATALOG_THREADS)
        self.control = trio.CapacityLimiter(CONTROL_THREADS)
        self.kernel = trio.CapacityLimiter(KERNEL_THREADS)


async def run_blocking(
    limiter: trio.CapacityLimiter, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """The result of ``work``, run in a thread of ``limiter``.

    A caller that is cancelled leaves the thread to end by itself: every fetch has its bound, and
    the cache takes no half object.
    """

    def call() -> T:
        return work(*args, **kwargs)

    return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)
