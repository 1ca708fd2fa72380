"""Neighbours of items kept in recall, so that one item's are not read for every user who clicked it.

Pure: the caller brings the time.
"""

from __future__ import annotations

from services.recall.counts import Counted


class NearLists:
    """At most ``capacity`` items, none given back ``max_age_s`` or longer after it was read; the one read
    longest ago leaves first."""

    def __init__(self, capacity: int, max_age_s: float) -> None:
        if capacity < 1 or max_age_s <= 0:
            raise ValueError(f"capacity={capacity}, max_age_s={max_age_s}: both above 0")
        self._capacity, self._max_age_s = capacity, max_age_s
        # In the order of keeping.
        self._kept: dict[int, tuple[float, Counted]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, item_id: int, now_s: float) -> Counted | None:
        """What was read lately."""
        kept = self._kept.get(item_id)
        if kept is None or now_s - kept[0] >= self._max_age_s:
            return None
        return kept[1]

    def put(self, item_id: int, neighbours: Counted, now_s: float) -> None:
        """Keeps what was read at ``now_s``."""
        self._kept.pop(item_id, None)
        self._kept[item_id] = now_s, neighbours
        if len(self._kept) > self._capacity:
            del self._kept[next(iter(self._kept))]
