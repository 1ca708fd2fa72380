"""Item states kept in the feature server, and the columns computed from them.

Redis tells of every item key that is written (client tracking, broadcast by prefix) on the very connection
that the values came by, so the order of what happened is the order of what is read: a value is either the
newest or about to be dropped. A second bound holds in case that a message is lost on Redis' side: no state is
served ``max_age_s`` after it was read. Without a connection the cache is empty.

An item has one row: its states under all item views, and the columns that follow from them with the moments
[from, until) at which they hold (kernel.interval). So an answer is a gather of rows; only those that were
written, or whose hop has ended, are computed again. An item without state is kept too. Pure: the caller
brings the time.
"""

# mypy: disallow-untyped-calls=False
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.id_table import IdTable
from services.contract.view_registry import FeatureSet
from services.feature import kernel as k
from services.feature.program import ITEM, Layout
from services.runtime.resp import Reply

_FIRST_IDS = 1024
Ids = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass
class Answered:
    """What a request of n candidates fills: items [n, width] float32, mask [n] uint32 (a bit per view without
    state), newest [views of the set] (the newest event of each view's states); the first ``count`` of
    categories [n] are those of the candidates, each once, ``category`` [n] which of them each candidate has.
    """

    category_column: int
    items: NDArray[np.float32]
    mask: NDArray[np.uint32]
    newest: NDArray[np.int64]
    category: Places
    categories: NDArray[np.int64]
    # By hash of a category: 1 + its place in ``categories``.
    slots: Places
    count: int = 0

    @classmethod
    def empty(cls, n: int, feature_set: FeatureSet) -> Answered:
        """Nothing filled yet."""
        return cls(
            feature_set.category_column,
            np.empty((n, feature_set.item_width), np.float32),
            np.empty(n, np.uint32),
            np.full(len(feature_set.views), k.NEVER, np.int64),
            np.empty(n, np.int64),
            np.empty(n, np.int64),
            np.zeros(1 << (2 * n).bit_length(), np.int64),
        )

    @property
    def category_ids(self) -> NDArray[np.int64]:
        """[n] of the candidates."""
        return self.categories[self.category]

    @property
    def packed(self) -> tuple[NDArray | int, ...]:
        """For the kernel."""
        width = self.items.shape[1]
        return (
            self.items.reshape(-1), width, self.category_column, self.mask, self.newest, self.category,
            self.categories, self.slots, self.count,
        )  # fmt: skip


class NearCache:
    """At most ``capacity`` items (a request's must fit); one that has waited longest leaves first. Its memory
    is the system's until a row is used."""

    def __init__(self, layout: Layout, capacity: int, max_age_s: float) -> None:
        if capacity < 1 or max_age_s <= 0:
            raise ValueError(f"capacity={capacity}, max_age_s={max_age_s}: both above 0")
        self._layout, self._program = layout, layout.item.packed
        self._capacity, self._max_age_ns = capacity, int(max_age_s * 1e9)
        self._moving = np.flatnonzero(self._program[1][:, k.OP] >= k.FIRST_EVENT)
        self._stride = layout.sizes[ITEM]
        states = np.zeros(capacity * self._stride, np.uint8)
        self._words = (states.view(np.int64), states.view(np.uint32), states)
        numbers = k.ROW_NEWEST + len(self._program[0]) + len(self._moving)
        width = (layout.feature_set.item_width + 1) // 2
        self._rows = np.zeros((capacity, numbers + width), np.int64)
        # The same memory once more: where the columns of the answer begin.
        flat = self._rows.reshape(-1)
        self._held = (flat, flat.view(np.float32), numbers + width, 2 * numbers)
        self._ids = np.zeros(capacity, np.uint64)
        self._table = IdTable(min(capacity, _FIRST_IDS))
        self._hand, self._tick = 0, 0
        self.computed = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._table)

    @property
    def bytes_per_item(self) -> int:
        """States, columns, what is kept about them, and the table of ids."""
        return self._stride + self._rows.shape[1] * 8 + 8 + 32

    def begin(self) -> int:
        """A number for one request: what it has looked at does not leave for what it reads."""
        self._tick += 1
        return self._tick

    def gather(self, ids: Ids, t: int, now_ns: int, tick: int, into: Answered) -> Places:
        """Fills the rows of the answer that are held; returns the places of those that must be read."""
        return self._gather(self._table.lookup(ids), np.arange(len(ids)), t, now_ns, tick, into)

    def _gather(  # noqa: PLR0917 - all of one request
        self, rows: Places, places: Places, t: int, now_ns: int, tick: int, into: Answered
    ) -> Places:
        stale = np.empty(len(rows), np.int64)
        unknown, computed, into.count = k.gather(
            rows, places, self._words, self._stride, self._program, self._moving, t, now_ns, tick,
            self._held, into.packed, stale,
        )  # fmt: skip
        self.computed += computed
        return stale[:unknown]

    def take(  # noqa: PLR0917 - all of one request
        self, ids: Ids, places: Places, reply: Reply, t: int, now_ns: int, tick: int, into: Answered
    ) -> None:
        """Keeps the states of items that are the last values of ``reply``, view by view, read at ``now_ns``
        (of repeated ids the last), and fills their ``places`` of the answer."""
        rows = self.put(ids, reply, now_ns, tick)
        self._gather(rows, places, t, now_ns, tick, into)

    def put(self, ids: Ids, reply: Reply, now_ns: int, tick: int) -> Places:
        """The first half of ``take``: the rows of the items."""
        if len(self._table) + len(ids) > self._capacity:
            self._make_room(ids, tick)
        rows = self._table.insert(ids)
        views = self._layout.stored[ITEM]
        first = len(reply.spans) - len(views) * len(ids)
        for view in views:
            k.fill(reply.data, reply.spans, first, rows, view.size, self._words[2], view.start, self._stride)
            first += len(ids)
        self._ids[rows] = ids
        k.renew(self._rows, rows, now_ns + self._max_age_ns, tick)
        return rows

    def _make_room(self, ids: Ids, tick: int) -> None:
        known = self._table.lookup(ids)
        self._rows[known[known >= 0], k.ROW_USED] = tick
        over = len(self._table) + len(np.unique(ids[known < 0])) - self._capacity
        if over <= 0:
            return
        rows = np.empty(over, np.int64)
        self._hand = k.victims(self._rows, tick, self._hand, self._table.row_limit, rows)
        self._table.delete(self._ids[rows])
        self.evicted += over

    def drop(self, ids: Ids) -> int:
        """Forgets items that were written; how many of them it had."""
        return int(k.expire(self._table.lookup(ids), self._rows))

    def clear(self) -> None:
        """Forgets everything."""
        self._table = IdTable(min(self._capacity, _FIRST_IDS))
        self._hand = 0
