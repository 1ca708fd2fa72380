"""What a run of days is.

A day of the world is ``day_s`` seconds. What a day means scales with it: the batch trainer's cut, how many
samples it has, Black Friday, and how fast the world moves (``DRIFT``). Event times stay wall times, so what
is about a visit and not about a day keeps its length: click delays, the attribution window, the windows
of features (one minute is half a day here), freshness in seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

FROZEN, DAILY, ONLINE, ONLINE_DAILY = ARMS = ("frozen", "daily", "online", "online_daily")
SHARES = {arm: 1 / len(ARMS) for arm in ARMS}
EXPERIMENT = "days"
# In a day of two minutes a trend swings once in 8 to 20 days, an item's quality in 4 to 16, a taste in 40 to
# 120. At the usual speed a trend would turn within two days, and yesterday's model could only be wrong.
DRIFT = 0.25
BLACK_FRIDAY = "black-friday"
# Clicks come 2 s after the impression on average. Short against a day: until its end nobody knows what was
# not clicked.
WINDOW_S = 5
# The joiner's disorder bound.
BOUND_S = 5


@dataclass(frozen=True)
class Plan:
    """``black_friday``: which day it is, from 1 on."""

    days: int
    day_s: int
    black_friday: int
    rate: float

    @property
    def duration_s(self) -> int:
        """Of the load."""
        return self.days * self.day_s

    def schedule(self) -> str:
        """Of the load (loadgen simulate --schedule)."""
        return f"{BLACK_FRIDAY}@{(self.black_friday - 1) * self.day_s}-{self.black_friday * self.day_s}"

    def turns(self) -> range:
        """Days at whose end the models change: all but the last one."""
        return range(1, self.days)


FULL = Plan(days=5, day_s=120, black_friday=4, rate=20.0)
QUICK = Plan(days=2, day_s=60, black_friday=2, rate=10.0)


def moment(unix_s: int) -> str:
    """As ``trainer batch --day`` takes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s))
