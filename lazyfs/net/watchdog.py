"""`Watchdog`: ends transfers that a per-read timeout cannot bound, such as headers that drip."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import socket
import threading
import time
from types import TracebackType
from typing import Self

import urllib3.connection

_current = threading.local()


class Watch:
    """One transfer under watch: entered by the thread that makes it."""

    def __init__(self, watchdog: Watchdog, seconds: float) -> None:
        self._watchdog = watchdog
        self.deadline = time.monotonic() + seconds
        self.connection: urllib3.connection.HTTPConnection | None = None
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
        """Allow that many seconds from now."""
        self.deadline = time.monotonic() + seconds

    def fire(self) -> None:
        """End the transfer: its next socket operation fails."""
        self.fired = True
        sock = getattr(self.connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def note_connection(connection: urllib3.connection.HTTPConnection) -> None:
    """Tell this thread's watch which connection its transfer uses."""
    watch: Watch | None = getattr(_current, "watch", None)
    if watch is not None:
        watch.connection = connection


class WatchedHTTPConnection(urllib3.connection.HTTPConnection):
    """A connection that a watch can cut."""

    def putrequest(self, *args: object, **kwargs: object) -> None:
        """Begin a request, and let the watch know who carries it."""
        note_connection(self)
        super().putrequest(*args, **kwargs)  # type: ignore[arg-type]


class WatchedHTTPSConnection(urllib3.connection.HTTPSConnection):
    """The same over TLS."""

    def putrequest(self, *args: object, **kwargs: object) -> None:
        """Begin a request, and let the watch know who carries it."""
        note_connection(self)
        super().putrequest(*args, **kwargs)  # type: ignore[arg-type]


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
            if self._thread is None:
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
                self._condition.notify()

    def fire_all(self) -> None:
        """End all transfers now."""
        with self._condition:
            watches = list(self._active)
        for watch in watches:
            watch.fire()

    def _run(self) -> None:
        with self._condition:
            while self._heap:
                deadline, number, watch = self._heap[0]
                if watch.over:
                    heapq.heappop(self._heap)
                elif watch.deadline > deadline:
                    heapq.heapreplace(self._heap, (watch.deadline, number, watch))
                elif (left := deadline - time.monotonic()) > 0:
                    self._condition.wait(left)
                else:
                    heapq.heappop(self._heap)
                    watch.fire()
            self._thread = None
