"""Clocks in integer microseconds since 1970 UTC: the wall's, and the run's.

Event time decides samples and features. The run clock answers "what event time is it now": the largest
event time seen plus the wall time since, scaled. It never moves back, and it does not know a time before
the first event.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from services.contract.times import MICROS


class WallClock:
    """The clock on the wall: cadences, freshness, retention."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1000


class RunClock:
    """Event time now: max over events seen of (its time + wall time since x time_scale).

    ``time_scale`` 0: the clock moves only with events. Not thread-safe: belongs to one event loop."""

    def __init__(self, time_scale: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        if time_scale < 0:
            raise ValueError(f"time_scale={time_scale}: at least 0")
        self._scale = time_scale
        self._monotonic = monotonic
        self._anchor_us: int | None = None
        self._anchored_s = 0.0

    @property
    def runs(self) -> bool:
        """Whether the clock moves without events."""
        return self._scale > 0

    def observe(self, event_us: int) -> None:
        """Moves the clock to an event's time, unless it is already past it."""
        now = self.now_us()
        if now is None or event_us > now:
            self._anchor_us = event_us
            self._anchored_s = self._monotonic()

    def now_us(self) -> int | None:
        """Event time now; None before the first event."""
        if self._anchor_us is None:
            return None
        elapsed_s = self._monotonic() - self._anchored_s
        return self._anchor_us + int(elapsed_s * self._scale * MICROS)
