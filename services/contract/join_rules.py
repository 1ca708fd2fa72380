"""Which events are about each other: functions of event times and barrier floors only.

Never of arrival: that is why every interleaving of the inputs gives the same samples. Each rule is an
interval of event time;
``JoinConfig.memory_us`` is at least as long as the longest of them.
"""

from __future__ import annotations

from services.contract.join_config import JoinConfig
from services.contract.join_state import Acted, Held, InputClock, Shown, Snap


def snapshot_belongs(config: JoinConfig, snap: Snap, shown: Shown) -> bool:
    """The snapshot is what this impression was scored with (not one behind a barrier that closed it)."""
    earliest = shown.occurred_us - config.show_us
    return (
        earliest <= snap.occurred_us <= shown.occurred_us + config.skew_us
        and shown.occurred_us >= snap.floor_us
    )


def action_is_about(config: JoinConfig, acted: Acted, shown: Shown) -> bool:
    """The action is a consequence of this impression, in time or too late."""
    earliest = max(shown.occurred_us - config.skew_us, shown.floor_us)
    return earliest <= acted.occurred_us <= shown.occurred_us + config.reach_us


def action_in_window(acted: Acted, shown: Shown, window_us: int) -> bool:
    """Its end included; an action behind a barrier is outside the windows which that barrier closed."""
    return acted.occurred_us <= shown.occurred_us + window_us and shown.occurred_us >= acted.floor_us


def action_waits(config: JoinConfig, acted: Acted, shown: Shown) -> bool:
    """It takes effect only when all actions that take effect on arrival are in."""
    return not shown.settled and acted.occurred_us > shown.occurred_us + config.instant_us


def window_over(config: JoinConfig, shown: Shown, watermark_us: int, floor_us: int) -> bool:
    """No action in the window can follow. Strictly above: one at exactly its end may still come at that
    watermark."""
    return watermark_us > shown.occurred_us + config.window_us or shown.occurred_us < floor_us


def no_impression_follows(config: JoinConfig, acted: Acted, watermark_us: int, floor_us: int) -> bool:
    """No impression that the action could be about can follow."""
    return watermark_us > acted.occurred_us + config.skew_us or acted.occurred_us < floor_us


def remembered(config: JoinConfig, held: Held, clock: InputClock) -> bool:
    """By its own input's watermark alone, whatever the other inputs do and whenever the state is swept."""
    return clock.watermark_us <= held.occurred_us + config.memory_us


def last_needed_by(config: JoinConfig, held: Held) -> int:
    """The latest time of an impression that could need this record; what eviction goes by."""
    if isinstance(held, Snap):
        return held.occurred_us + config.show_us
    if isinstance(held, Acted):
        return held.occurred_us + config.skew_us
    return held.occurred_us
