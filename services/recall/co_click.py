"""Items that were clicked together with the user's last clicks: two round trips to Redis per request.

A later click counts more (recency_weights); what the user has clicked already is not proposed.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from services.contract import redis_keys, view_clicks
from services.contract.feature_view import FeatureView
from services.recall import counts, metrics
from services.recall.sorted_sets import SortedSets
from services.recall.sources import NO_IDS


class CoClicks:
    """Reads the user's last clicks in the state of ``view`` (contract.view_clicks), then their neighbours."""

    def __init__(self, redis: Redis, sets: SortedSets, view: FeatureView, per_item: int) -> None:
        self._redis = redis
        self._view = view
        self._sets = sets
        self._per_item = per_item

    async def propose(self, user_id: int, k: int) -> NDArray[np.uint64]:
        """At most k items, best first; none for a user without clicks. Raises as the Redis client does."""
        key = redis_keys.view_key(self._view, user_id.to_bytes(8, "little"))
        value = cast("bytes | None", await self._redis.get(key))
        # The same item may have been clicked twice: its latest click counts.
        clicked = list(dict.fromkeys(view_clicks.last_clicked_items(self._view, value)))
        if not clicked:
            return NO_IDS
        keys = [redis_keys.co_click_key(item_id) for item_id in clicked]
        found, bad = await self._sets.tops(keys, self._per_item)
        metrics.BAD_MEMBERS.labels("co_click").inc(bad)
        return counts.ranked(found, counts.recency_weights(len(clicked)), keep=k, without=clicked)
