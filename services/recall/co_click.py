"""Items that were clicked together with the user's last clicks: one or two round trips to Redis per request.

A later click counts more (recency_weights); what the user has clicked already is not proposed. The user's
clicks are read each time; an item's neighbours may be some seconds old (near_lists.py).
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from services.contract import redis_keys, view_clicks
from services.contract.feature_view import FeatureView
from services.recall import counts, metrics
from services.recall.counts import Counted
from services.recall.near_lists import NearLists
from services.recall.sorted_sets import SortedSets
from services.recall.sources import NO_IDS
from services.runtime.redis_reader import RedisReader
from services.runtime.resp import mget

_NEAR, _READ = (metrics.CO_CLICK_LISTS.labels(outcome) for outcome in ("near", "read"))


class CoClicks:
    """Reads the user's last clicks in the state of ``view`` (contract.view_clicks), then their neighbours."""

    def __init__(
        self, redis: RedisReader, sets: SortedSets, view: FeatureView, per_item: int, near: NearLists
    ) -> None:
        self._redis = redis
        self._view = view
        self._sets = sets
        self._per_item = per_item
        self._near = near

    async def propose(self, user_id: int, k: int) -> NDArray[np.uint64]:
        """At most k items, best first; none for a user without clicks. Raises OSError, as the reader does."""
        key = redis_keys.view_key(self._view, user_id.to_bytes(8, "little"))
        (value,) = await self._redis.ask(mget([(b"", key, len(key))]))
        # The same item may have been clicked twice: its latest click counts.
        clicked = list(dict.fromkeys(view_clicks.last_clicked_items(self._view, value)))
        if not clicked:
            return NO_IDS
        found = await self._neighbours(clicked)
        return counts.ranked(found, counts.recency_weights(len(clicked)), keep=k, without=clicked)

    async def _neighbours(self, items: list[int]) -> list[Counted]:
        asked_s = time.monotonic()
        near = {item_id: self._near.get(item_id, asked_s) for item_id in items}
        missing = [item_id for item_id, kept in near.items() if kept is None]
        _NEAR.inc(len(items) - len(missing))
        if missing:
            _READ.inc(len(missing))
            keys = [redis_keys.co_click_key(item_id) for item_id in missing]
            read, bad = await self._sets.tops(keys, self._per_item)
            metrics.BAD_MEMBERS.labels("co_click").inc(bad)
            for item_id, neighbours in zip(missing, read, strict=True):
                near[item_id] = neighbours
                self._near.put(item_id, neighbours, asked_s)
        return [neighbours for neighbours in near.values() if neighbours is not None]
