"""Popular items: read from Redis in the background, proposed from memory.

The list of the last refresh is an immutable array behind one reference. The refresh is also recall's pulse
of Redis: while it fails, no request asks Redis for anything.

Clicks go into the hops of now, so the two newest are read each time and the older ones in turn: a refresh is
small, and a change of an old hop (a seed, a late click) is seen within POPULAR_HOPS refreshes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from services.contract.redis_keys import POPULAR_HOP_US, POPULAR_HOPS, popular_hop, popular_key
from services.recall import counts, metrics
from services.recall.sorted_sets import SortedSets
from services.recall.sources import NO_IDS

_EVERY_TIME = 2


class PopularItems:
    """The clicks of the last hops of event time, weighted by age. ``event_now_us``: event time now."""

    def __init__(
        self,
        sets: SortedSets,
        event_now_us: Callable[[], int],
        *,
        keep: int,
        half_life_us: int,
        stale_s: float,
    ) -> None:
        self._sets = sets
        self._event_now_us = event_now_us
        self._keep = keep
        self._stale_s = stale_s
        self._weights = counts.hop_weights(POPULAR_HOPS, POPULAR_HOP_US, half_life_us)
        self._hops: dict[int, counts.Counted] = {}
        self._turn = 0
        self._ids: NDArray[np.uint64] = NO_IDS
        self._refreshed_at: float | None = None
        self.redis_alive = False

    def __len__(self) -> int:
        return len(self._ids)

    def propose(self, k: int) -> tuple[NDArray[np.uint64], str | None]:
        """The k most popular items, and what is wrong with them (None = nothing)."""
        if self._refreshed_at is None:
            return NO_IDS, "unavailable"
        stale = time.monotonic() - self._refreshed_at > self._stale_s
        return self._ids[:k], "stale" if stale else None

    async def refresh(self) -> bool:
        """Reads the hops anew; False, and everything as before, when Redis does not answer."""
        newest = popular_hop(self._event_now_us())
        wanted = [newest - age for age in range(POPULAR_HOPS)]
        reading = self._due(wanted)
        try:
            found, bad = await self._sets.tops([popular_key(hop) for hop in reading], self._keep)
        except OSError as error:
            metrics.REDIS_ERRORS.labels("popular").inc()
            if self.redis_alive or self._refreshed_at is None:
                metrics.log.warning("redis does not answer", source="popular", error=repr(error))
            self.redis_alive = False
            return False
        metrics.BAD_MEMBERS.labels("popular").inc(bad)
        known = self._hops | dict(zip(reading, found, strict=True))
        self._hops = {hop: known[hop] for hop in wanted}
        self._ids = counts.ranked(list(self._hops.values()), self._weights, keep=self._keep)
        self._refreshed_at = time.monotonic()
        self.redis_alive = True
        return True

    async def run(self, every_s: float) -> None:
        """Refreshes until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(every_s)

    def _due(self, wanted: list[int]) -> list[int]:
        """The newest hops, those never read, and one of the others."""
        older = wanted[_EVERY_TIME:]
        self._turn = (self._turn + 1) % len(older)
        unread = [hop for hop in older if hop not in self._hops]
        return [*wanted[:_EVERY_TIME], *dict.fromkeys([*unread, older[self._turn]])]
