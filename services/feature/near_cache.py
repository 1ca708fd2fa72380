"""Item states kept in the feature server: what Redis said a moment ago, and has not taken back since.

Redis tells of every item key that is written (client tracking, broadcast by prefix) on the very connection
that the values came by, so the order of what happened is the order of what is read: a value is either the
newest or about to be dropped. A second bound holds in case that a message is lost on Redis' side: no state is
served ``max_age_s`` after it was read. Without a connection the cache is empty.

An item without state is kept too, as zeros. Pure: the caller brings the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.contract.feature_layout import ITEM_DTYPE


class NearCache:
    """At most ``capacity`` items of ITEM_BYTES each; the one that came first leaves first."""

    def __init__(self, capacity: int, max_age_s: float) -> None:
        if capacity < 1 or max_age_s <= 0:
            raise ValueError(f"capacity={capacity}, max_age_s={max_age_s}: both above 0")
        self._capacity = capacity
        self._max_age_s = max_age_s
        self._rows = np.zeros(0, ITEM_DTYPE)
        self._read_at = np.zeros(0)
        # Item id of each place, and back; places that a dropped item left; the place to be taken next.
        self._held: list[int | None] = []
        self._place: dict[int, int] = {}
        self._free: list[int] = []
        self._next = 0
        self._evictions = 0

    def __len__(self) -> int:
        return len(self._place)

    def look(self, ids: NDArray[np.uint64], now_s: float) -> tuple[NDArray, NDArray[np.intp]]:
        """ids: [n]. Rows [n] ITEM_DTYPE (a copy), and the positions of those that must be read."""
        if not self._place:
            return np.zeros(len(ids), ITEM_DTYPE), np.arange(len(ids))
        get = self._place.get
        places = np.array([get(item, -1) for item in ids.tolist()], np.intp)
        stale = (places < 0) | (self._read_at[places] < now_s - self._max_age_s)
        # Place -1 is some row; the caller fills it.
        return self._rows[places], np.flatnonzero(stale)

    def put(self, ids: Sequence[int], rows: NDArray, now_s: float) -> int:
        """Keeps rows [n] ITEM_DTYPE read at ``now_s`` (of more than the capacity the last, of repeated ids
        the last); how many other items had to leave."""
        first, before = max(0, len(ids) - self._capacity), self._evictions
        places = np.array([self._place_for(item) for item in ids[first:]], np.intp)
        self._rows[places] = rows[first:]
        self._read_at[places] = now_s
        return self._evictions - before

    def _place_for(self, item: int) -> int:
        place = self._place.get(item)
        if place is None:
            place = self._free.pop() if self._free else self._oldest()
            self._held[place] = item
            self._place[item] = place
        return place

    def _oldest(self) -> int:
        place = self._next
        self._next = (place + 1) % self._capacity
        if place == len(self._held):
            self._grow()
        gone = self._held[place]
        if gone is not None:
            del self._place[gone]
            self._evictions += 1
        return place

    def _grow(self) -> None:
        size = min(self._capacity, max(1024, 2 * len(self._held)))
        more = size - len(self._held)
        self._held += [None] * more
        self._rows = np.concatenate([self._rows, np.zeros(more, ITEM_DTYPE)])
        self._read_at = np.concatenate([self._read_at, np.zeros(more)])

    def drop(self, ids: Sequence[int]) -> int:
        """Forgets items that were written; how many of them it had."""
        had = 0
        for item in ids:
            place = self._place.pop(item, None)
            if place is not None:
                self._held[place] = None
                self._free.append(place)
                had += 1
        return had

    def clear(self) -> None:
        """Forgets everything."""
        self._place.clear()
        self._free.clear()
        self._held = [None] * len(self._held)
        self._next = 0
