"""`SingleFlight`: among threads, one call per key at a time; all who ask share its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Calls in flight by key.

    A result is handed to those who asked while it was being made, and not remembered: whoever
    asks later starts a new flight. An error reaches all waiters of the flight alike.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Future[T]] = {}

    def do(self, key: str, work: Callable[[], T]) -> T:
        """The outcome of ``work``, or of the flight for ``key`` that is already under way."""
        with self._lock:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if leads:
            self._fly(key, flight, work)
        return flight.result()

    def _fly(self, key: str, flight: Future[T], work: Callable[[], T]) -> None:
        try:
            result = work()
        except BaseException as exc:
            self._land(key)
            flight.set_exception(exc)
        else:
            self._land(key)
            flight.set_result(result)

    def _land(self, key: str) -> None:
        with self._lock:
            del self._flights[key]

    def __len__(self) -> int:
        return len(self._flights)
