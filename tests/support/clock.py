"""A clock that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """Seconds that pass only on demand; sleeping is passing.

    Args:
        now: Where it begins; zero, so that no code may take a time for a missing one.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass, and remember that somebody waited."""
        self.slept.append(seconds)
        self.now += seconds
