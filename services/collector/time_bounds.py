"""Which event times are believed now.

The reference is the run clock, not the wall: a log of 1997 replays today. Before the first event there is
no run clock, and any past is accepted; the future is then measured from the wall, so that one absurd first
event cannot make every later one "distant past".
"""

from __future__ import annotations

from dataclasses import dataclass

from services.collector.settings import EventTimeSettings

_MICROS_PER_MS = 1000


@dataclass(frozen=True)
class TimeBounds:
    """Accepted event times in microseconds, both ends included."""

    earliest_us: int
    latest_us: int


def time_bounds(
    settings: EventTimeSettings, time_scale: float, run_now_us: int | None, wall_now_us: int
) -> TimeBounds:
    """The bounds at a moment. ``time_scale`` 0 (event time moves with events) and above 1 (faster than the
    wall) may jump by ``jump_bound_ms``; at 1 and between, an event may be ahead by ``future_bound_ms``.
    """
    real_time = 0 < time_scale <= 1
    ahead_us = (settings.future_bound_ms if real_time else settings.jump_bound_ms) * _MICROS_PER_MS
    if run_now_us is None:
        return TimeBounds(0, wall_now_us + ahead_us)
    return TimeBounds(max(0, run_now_us - settings.past_bound_ms * _MICROS_PER_MS), run_now_us + ahead_us)
