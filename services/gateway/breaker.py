"""A circuit breaker: when a dependency is skipped, and when it is tried again.

    closed --failures in a row--> open --pause over--> probing --success--> closed
                                    ^---------failure------'

One request probes; the others go on skipping until it has an answer. A probe that never tells
(its task was cancelled) is given up after another pause. Pure: the caller gives the time.
"""

from __future__ import annotations

from enum import Enum


class BreakerState(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """Decides for one dependency whether a call may go out. Times are monotonic seconds."""

    def __init__(self, failures_to_open: int, pause_s: float) -> None:
        if failures_to_open < 1 or pause_s <= 0:
            raise ValueError(f"failures_to_open={failures_to_open} (at least 1), pause_s={pause_s} (above 0)")
        self._failures_to_open = failures_to_open
        self._pause_s = pause_s
        self._failures = 0
        self._retry_at = 0.0
        self.state = BreakerState.CLOSED

    def allows(self, now: float) -> bool:
        """Whether to call now; the first call after the pause becomes the probe."""
        if self.state is BreakerState.CLOSED:
            return True
        if now < self._retry_at:
            return False
        self.state = BreakerState.PROBING
        self._retry_at = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """The dependency answered."""
        self._failures = 0
        self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        """The dependency did not answer, or not in time, or with garbage."""
        self._failures += 1
        if self.state is BreakerState.PROBING or self._failures >= self._failures_to_open:
            self.state = BreakerState.OPEN
            self._retry_at = now + self._pause_s
