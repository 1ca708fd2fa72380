"""Items kept in the feature server: their packed states, and the columns that these were last read as.

The value of a column depends on the event time t of a request only through its hop, as long as nothing in the
state has overtaken t; so what was computed once in a hop is a row of a matrix, and a request of a thousand
items is one gather. What moves with t itself is kept as the moment since when it counts. Anything else
(another hop, a state that has overtaken the request) is read anew from the packed states.

Redis tells of every item key that is written (client tracking, broadcast by prefix) on the very connection
that the values came by, so the order of what happened is the order of what is read: a state is either the
newest or about to be dropped. A second bound holds in case that a message is lost on Redis' side: no state is
served ``max_age_s`` after it was read. Without a connection the table is empty. An item without states is
kept too.

Pure: the caller brings the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.view_plan import NONE_US
from services.contract.view_read import PackedWindows, records_of
from services.contract.view_values import Values, finish, moment, since
from services.feature.layout import Layout, Placed

_FIRST = 1024
# Stands for no hop at all.
_NEVER = -(1 << 62)


@dataclass(frozen=True)
class Items:
    """Candidates at a moment. rows [n, item_width]: columns of the item views, the others at their defaults;
    missing [n, item views]; newest_us [n]: of all states of an item, NONE_US without any."""

    rows: NDArray[np.float32]
    missing: NDArray[np.bool_]
    newest_us: NDArray[np.int64]


class _View:
    """One view's part of the table."""

    def __init__(self, placed: Placed) -> None:
        self.placed = placed
        self.records = np.zeros(0, placed.plan.dtype)
        self.newest_us = np.zeros(0, np.int64)
        # The hop for which the columns stand in the table.
        self.hop = np.zeros(0, np.int64)
        self.missing = np.zeros(0, bool)
        self.moments = [(np.zeros(0, np.int64), np.zeros(0, bool)) for _ in placed.moving]

    def grow(self, size: int) -> None:
        self.records = _longer(self.records, size)
        self.newest_us, self.hop = _longer(self.newest_us, size), _longer(self.hop, size)
        self.missing = _longer(self.missing, size)
        self.moments = [(_longer(us, size), _longer(known, size)) for us, known in self.moments]

    def put(self, places: NDArray[np.intp], records: NDArray) -> None:
        self.records[places] = records
        self.newest_us[places] = np.where(records["version"] == 0, NONE_US, records["newest_us"])
        self.hop[places] = _NEVER

    def renew(self, places: NDArray[np.intp], at_us: int, rows: NDArray[np.float32]) -> int:
        """Makes the columns in ``rows`` those of ``at_us``; how many items were read anew."""
        view = self.placed.view
        hop = at_us // view.hop_us
        overtaken = self.newest_us[places] >= at_us
        stale = (self.hop[places] != hop) | overtaken
        if not stale.any():
            return 0
        anew = np.unique(places[stale])
        windows = PackedWindows(self.placed.plan, self.records[anew], np.full(len(anew), at_us))
        values: Values = finish(self.placed.plan, windows, np.full(len(anew), at_us), {})
        rows[anew[:, None], self.placed.at] = values.values[:, self.placed.own]
        self.missing[anew] = windows.missing
        for (us, known), (feature, _) in zip(self.moments, self.placed.moving, strict=True):
            us[anew], known[anew] = moment(self.placed.plan, windows, feature)
            known[anew] &= ~windows.missing
        self.hop[anew] = np.where(self.newest_us[anew] >= at_us, _NEVER, hop)
        return len(anew)


class ItemTable:
    """At most ``capacity`` items; the one that came first leaves first. ``read_anew`` counts rows computed
    from packed states."""

    def __init__(self, layout: Layout, capacity: int, max_age_s: float) -> None:
        if capacity < 1 or max_age_s <= 0:
            raise ValueError(f"capacity={capacity}, max_age_s={max_age_s}: both above 0")
        self._layout = layout
        self._capacity = capacity
        self._max_age_s = max_age_s
        self._views = [_View(placed) for placed in layout.items]
        self._rows = np.zeros((0, layout.feature_set.item_width), np.float32)
        self._newest_us = np.zeros(0, np.int64)
        self._read_at = np.zeros(0)
        # Item id of each place, and back; places that a dropped item left; the place to be taken next.
        self._held: list[int | None] = []
        self._place: dict[int, int] = {}
        self._free: list[int] = []
        self._next = 0
        self.evicted = 0
        self.read_anew = 0

    def __len__(self) -> int:
        return len(self._place)

    def find(self, ids: NDArray[np.uint64], now_s: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """ids [n]: the places [n], and the positions of those that must be read first (their places mean
        nothing)."""
        if not self._place:
            return np.full(len(ids), -1, np.intp), np.arange(len(ids))
        get = self._place.get
        places = np.array([get(item, -1) for item in ids.tolist()], np.intp)
        return places, np.flatnonzero((places < 0) | (self._read_at[places] < now_s - self._max_age_s))

    def columns(self, places: NDArray[np.intp], at_us: int) -> Items:
        """What the items at ``places`` [n] are at an event time."""
        for view in self._views:
            self.read_anew += view.renew(places, at_us, self._rows)
        rows = self._rows[places]
        at = np.full(len(places), at_us)
        for view in self._views:
            for (us, known), (feature, column) in zip(view.moments, view.placed.moving, strict=True):
                rows[:, column] = since(view.placed.view, feature, us[places], known[places], at)
        missing = np.empty((len(places), len(self._views)), bool)
        for index, view in enumerate(self._views):
            missing[:, index] = view.missing[places]
        return Items(rows, missing, self._newest_us[places])

    def put(
        self, ids: Sequence[int], values: Sequence[Sequence[bytes | None]], now_s: float
    ) -> NDArray[np.intp]:
        """Keeps what Redis holds of ids [n] at ``now_s``, a list [n] per item view; their places. Of more
        than the capacity, or of repeated ids, the last are kept."""
        places = np.array([self._place_for(item) for item in ids], np.intp)
        newest = np.full(len(ids), NONE_US)
        for view, found in zip(self._views, values, strict=True):
            records = records_of(view.placed.plan, found)
            view.put(places, records)
            np.maximum(newest, np.where(records["version"] == 0, NONE_US, records["newest_us"]), out=newest)
        self._newest_us[places] = newest
        self._read_at[places] = now_s
        return places

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
            self.evicted += 1
        return place

    def _grow(self) -> None:
        size = min(self._capacity, max(_FIRST, 2 * len(self._held)))
        self._held += [None] * (size - len(self._held))
        for view in self._views:
            view.grow(size)
        rows = np.tile(self._layout.feature_set.item_defaults, (size, 1))
        rows[: len(self._rows)] = self._rows
        self._rows = rows
        self._newest_us, self._read_at = _longer(self._newest_us, size), _longer(self._read_at, size)

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


def _longer(values: NDArray, size: int) -> NDArray:
    longer = np.zeros(size, values.dtype)
    longer[: len(values)] = values
    return longer
