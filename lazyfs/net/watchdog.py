"""`Watchdog`: ends transfers that a per-read timeout cannot bound, such as headers that drip."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_current = threading.local()

_LINGER = 5.0
"""Seconds the thread waits for more work before it ends; starting one costs more than that."""


class Watch:
    """One transfer under watch: entered by the thread that makes it."""

    def __init__(self, watchdog: Watchdog, seconds: float) -> None:
        self._watchdog = watchdog
        self._sock: object = None
        self.begun = time.monotonic()
        self.deadline = self.begun + seconds
        self.paused = False
        self.over = False
        self.fired = False

    def __enter__(self) -> Self:
        _current.watch = self
        self._watchdog.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _current.watch = None
        self._watchdog.discard(self)

    def extend(self, seconds: float) -> None:
        """Allow that many seconds from now; never less than was allowed before."""
        self.deadline = max(self.deadline, time.monotonic() + seconds)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Do not count the time inside: a slow disk is not a slow server."""
        start = time.monotonic()
        self.paused = True
        try:
            yield
        finally:
            self.deadline += time.monotonic() - start
            self.paused = False

    def carry(self, sock: object) -> None:
        """Remember the socket: the connection forgets its own when the answer says "close"."""
        self._sock = sock
        if self.fired:
            self._cut()

    def fire(self) -> None:
        """End the transfer: its next socket operation fails."""
        self.fired = True
        self._cut()

    def _cut(self) -> None:
        sock = self._sock
        while sock is not None and not isinstance(sock, socket.socket):
            sock = getattr(sock, "socket", None)  # TLS inside TLS has its socket inside
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not the method of a TLS socket: that one would take away its state in mid-read.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def carry(sock: object) -> None:
    """Tell this thread's watch which socket its transfer uses."""
    watch: Watch | None = getattr(_current, "watch", None)
    if watch is not None:
        watch.carry(sock)


class Watchdog:
    """Fires watches whose time is over, from one thread that lives while there are any."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Watch]] = []
        self._active: set[Watch] = set()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, seconds: float) -> Watch:
        """A watch, to be entered."""
        return Watch(self, seconds)

    def add(self, watch: Watch) -> None:
        """Begin to watch."""
        with self._condition:
            self._active.add(watch)
            heapq.heappush(self._heap, (watch.deadline, next(self._numbers), watch))
            # In a child process that was forked off, the thread is not alive.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="lazyfs-watchdog", daemon=True
                )
                self._thread.start()
            elif self._heap[0][2] is watch:
                self._condition.notify()

    def discard(self, watch: Watch) -> None:
        """End a watch."""
        with self._condition:
            watch.over = True
            self._active.discard(watch)
            if not self._active:
                self._heap.clear()

    def fire_all(self) -> None:
        """End all transfers now."""
        with self._condition:
            watches = list(self._active)
        for watch in watches:
            watch.fire()

    def _run(self) -> None:
        with self._condition:
            while self._heap or (self._condition.wait(_LINGER) and self._heap):
                deadline, number, watch = self._heap[0]
                now = time.monotonic()
                if watch.over:
                    heapq.heappop(self._heap)
                elif watch.deadline > deadline:
                    heapq.heapreplace(self._heap, (watch.deadline, number, watch))
                elif deadline > now:
                    self._condition.wait(deadline - now)
                elif watch.paused:
                    # Look again soon; the end of the pause moves the deadline by its length.
                    heapq.heapreplace(self._heap, (now + 0.1, number, watch))
                else:
                    heapq.heappop(self._heap)
                    watch.fire()
            self._thread = None
