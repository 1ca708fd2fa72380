"""Item states kept in the feature server, and the columns computed from them.

Redis tells of every item key that is written (client tracking, broadcast by prefix) on the very connection
that the values came by, so the order of what happened is the order of what is read: a value is either the
newest or about to be dropped. A second bound holds in case that a message is lost on Redis' side: no state is
served ``max_age_s`` after it was read. Without a connection the cache is empty.

An item has one row: its states under all item views, and the columns that follow from them with the moments
[from, until) at which they hold (kernel.interval). So an answer is a gather; only rows that were written, or
whose hop has ended, are computed again. An item without state is kept too. Pure: the caller brings the time.
"""

# mypy: disallow-untyped-calls=False
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.id_table import IdTable
from services.contract.view_plan import plan_of
from services.feature import kernel as k
from services.feature.program import ITEM, Layout

_FIRST_ROWS = 1024
Ids = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass
class Answered:
    """What a request fills, n candidates: items [n, width] float32, mask [n] uint32, newest [views of the
    set] (the newest event of each view's states)."""

    items: NDArray[np.float32]
    mask: NDArray[np.uint32]
    newest: NDArray[np.int64]


class NearCache:
    """At most ``capacity`` items (a request's must fit); one that has waited longest leaves first."""

    def __init__(self, layout: Layout, capacity: int, max_age_s: float) -> None:
        if capacity < 1 or max_age_s <= 0:
            raise ValueError(f"capacity={capacity}, max_age_s={max_age_s}: both above 0")
        self._layout, self._program = layout, layout.item
        self._capacity, self._max_age_ns = capacity, int(max_age_s * 1e9)
        self._stride = layout.sizes[ITEM]
        ops = self._program.packed[1][:, k.OP]
        self._width = k.ROW_SINCE + int((ops >= k.FIRST_EVENT).sum())
        # (feature, column of the answer) of each.
        pairs = np.stack([np.arange(len(ops)), self._program.columns], axis=1).astype(np.int64)
        self._copied, self._moving = pairs[ops < k.FIRST_EVENT], pairs[ops >= k.FIRST_EVENT]
        self._views = self._program.packed[0][:, k.VIEW]
        self._table = IdTable(min(capacity, _FIRST_ROWS))
        self._hand, self._tick = 0, 0
        self._allocate(0)
        self._reserve(min(capacity, _FIRST_ROWS))
        self.computed = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._table)

    @property
    def bytes_per_item(self) -> int:
        """States, columns and what is kept about them."""
        views, features = len(self._program.packed[0]), self._program.width
        return self._stride + 8 * self._width + 4 * features + 8 * views + 4 + 8 + 32

    def _allocate(self, rows: int) -> None:
        features, views = self._program.width, len(self._program.packed[0])
        self._bytes = np.zeros(rows * self._stride, np.uint8)
        self._meta = np.full((rows, self._width), k.NEVER, np.int64)
        self._values = np.zeros((rows, features), np.float32)
        self._masks = np.zeros(rows, np.uint32)
        self._newest = np.full((rows, views), k.NEVER, np.int64)
        self._ids = np.zeros(rows, np.uint64)
        self._words = (self._bytes.view(np.int64), self._bytes.view(np.uint32), self._bytes)

    def _reserve(self, rows: int) -> None:
        had = len(self._ids)
        if rows <= had:
            return
        names = ("_bytes", "_meta", "_values", "_masks", "_newest", "_ids")
        old = [getattr(self, name) for name in names]
        self._allocate(min(self._capacity, max(rows, 2 * had)))
        for name, column in zip(names, old, strict=True):
            getattr(self, name)[: len(column)] = column

    def begin(self) -> int:
        """A number for one request: what it has looked at does not leave for what it reads."""
        self._tick += 1
        return self._tick

    def gather(  # noqa: PLR0917 - all of one request
        self, ids: Ids, places: Places | None, t: int, now_ns: int, tick: int, into: Answered
    ) -> Places:
        """Fills the answer's rows ``places`` (of ``ids`` [n]; None = all) that are held; returns the places
        of those that must be read."""
        rows = self._table.lookup(ids if places is None else ids[places])
        stale = np.empty(len(rows), np.int64)
        items = into.items if places is None else into.items[places]
        mask = into.mask if places is None else into.mask[places]
        ages = np.full(len(self._views), k.NEVER, np.int64)
        unknown, computed = k.gather(
            rows, self._words, self._stride, self._program.packed, self._copied, self._moving,
            t, now_ns, tick,
            (self._meta, self._values, self._masks, self._newest), (items, mask, ages), stale,
        )  # fmt: skip
        into.newest[self._views] = np.maximum(into.newest[self._views], ages)
        self.computed += computed
        if places is None:
            return stale[:unknown]
        into.items[places], into.mask[places] = items, mask
        return places[stale[:unknown]]

    def put(self, ids: Ids, records: list[NDArray], now_ns: int, tick: int) -> None:
        """Keeps the states of items, read at ``now_ns``: per item view [n, bytes] uint8 (of repeated ids the
        last)."""
        known = self._table.lookup(ids)
        fresh = len(np.unique(ids[known < 0]))
        over = len(self._table) + fresh - self._capacity
        if over > 0:
            self._meta[known[known >= 0], k.ROW_USED] = tick
            self._evict(over, tick)
        rows = self._table.insert(ids)
        self._reserve(self._table.row_limit)
        held = self._bytes.reshape(-1, self._stride)
        for view, states in zip(self._layout.groups[ITEM], records, strict=True):
            at = self._layout.starts[view.name]
            held[rows, at : at + states.shape[1]] = states
        self._ids[rows] = ids
        # Computed when asked for: no moment is in [k.ALWAYS, k.NEVER).
        self._meta[rows, k.ROW_FROM], self._meta[rows, k.ROW_UNTIL] = k.ALWAYS, k.NEVER
        self._meta[rows, k.ROW_EXPIRES], self._meta[rows, k.ROW_USED] = now_ns + self._max_age_ns, tick

    def _evict(self, count: int, tick: int) -> None:
        rows = np.empty(count, np.int64)
        self._hand = k.victims(self._meta, tick, self._hand, self._table.row_limit, rows)
        self._meta[rows, k.ROW_EXPIRES] = k.NEVER
        self._table.delete(self._ids[rows])
        self.evicted += count

    def drop(self, ids: Ids) -> int:
        """Forgets items that were written; how many of them it had."""
        return int(k.expire(self._table.lookup(ids), self._meta))

    def clear(self) -> None:
        """Forgets everything."""
        self._table = IdTable(min(self._capacity, _FIRST_ROWS))
        self._meta[:] = k.NEVER
        self._hand = 0


def records_matrix(values: list[bytes | None], size: int) -> NDArray[np.uint8]:
    """[n, size] of Redis' values; zeros (no state) for what has not that size."""
    nothing = bytes(size)
    joined = b"".join([nothing if one is None or len(one) != size else one for one in values])
    return np.frombuffer(joined, np.uint8).reshape(-1, size)


def item_sizes(layout: Layout) -> list[int]:
    """Bytes of a state of each item view."""
    return [plan_of(view).layout.size for view in layout.groups[ITEM]]
