"""Rows of one embedding table in one matrix, found by 64-bit id; and the search over all of them.

A row keeps its place until it is removed. Then the place is a hole, whose last column is minus infinity, so
that no search finds it, until another row gets it. Not thread-safe: one thread owns a table. The arrays are
replaced when the table grows, so another thread may look at those that it got, a little behind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.contract.id_table import IdTable

_MIN_ROWS = 1024
_HOLE = np.float32(-np.inf)
# Scores looked at for a bound: enough that twice the expected share holds k nearly always.
_SAMPLE = 4096

Places = NDArray[np.int64]


class VectorTable:
    """Ids and their rows, [places, width] float32, contiguous."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._index = IdTable()
        self._ids: NDArray[np.uint64] = np.zeros(_MIN_ROWS, np.uint64)
        self._rows: NDArray[np.float32] = np.empty((_MIN_ROWS, width), np.float32)

    @property
    def size(self) -> int:
        """Rows, without the holes."""
        return len(self._index)

    @property
    def ids(self) -> NDArray[np.uint64]:
        """[places] ids, in the order of ``rows``; a view. That of a hole means nothing."""
        return self._ids[: self._index.row_limit]

    @property
    def rows(self) -> NDArray[np.float32]:
        """[places, width] rows, holes among them; a view."""
        return self._rows[: self._index.row_limit]

    def places(self, ids: NDArray[np.uint64]) -> Places:
        """The place of each id, -1 where there is none."""
        return self._index.lookup(ids)

    def get(self, key: int) -> NDArray[np.float32] | None:
        """The row of one id (a view), or None."""
        place = int(self._index.lookup(np.array([key], np.uint64))[0])
        return None if place < 0 else self._rows[place]

    def upsert(self, ids: NDArray[np.uint64], rows: NDArray[np.float32]) -> Places:
        """Writes rows [n, width] under distinct ids [n]; ids that are not there yet are added. Their
        places."""
        if rows.shape != (len(ids), self.width):
            raise ValueError(f"rows of shape {rows.shape} for {len(ids)} ids of width {self.width}")
        places = self._index.insert(ids)
        self._reserve(self._index.row_limit)
        self._ids[places] = ids
        self._rows[places] = rows
        return places

    def remove(self, ids: NDArray[np.uint64]) -> Places:
        """Takes ids out; ids that are not there are no matter. The places that are holes now."""
        places = self._index.delete(ids)
        places = places[places >= 0]
        self._rows[places] = 0
        self._rows[places, -1] = _HOLE
        return places

    def _reserve(self, rows: int) -> None:
        held = len(self._ids)
        if rows <= held:
            return
        capacity = max(rows, held * 3 // 2)
        ids, matrix = np.zeros(capacity, np.uint64), np.empty((capacity, self.width), np.float32)
        ids[:held], matrix[:held] = self._ids, self._rows
        self._ids, self._rows = ids, matrix


def live(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of some rows [n, width] of a table are no holes."""
    return rows[:, -1] != _HOLE


def best(items: VectorTable, user: NDArray[np.float32], k: int) -> NDArray[np.uint64]:
    """The k items with the largest <p_u, q_i> + b_i, best first.

    items: rows [factors + 1], the last column is b_i. user: [factors].
    """
    k = min(k, items.size)
    if k <= 0:
        return np.empty(0, np.uint64)
    scores = items.rows @ query_of(user)
    top = largest(scores, k)
    return best_first(items.ids[top], scores[top])


def query_of(user: NDArray[np.float32]) -> NDArray[np.float32]:
    """What an item's row is multiplied with: the user's factors, and 1 for the item's bias."""
    return np.append(user, np.float32(1.0))


def best_first(ids: NDArray[np.uint64], scores: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Ids by score. Equal scores (rows never trained) are ordered by id, so that the answer does not depend
    on the places."""
    return ids[np.lexsort((ids, -scores))]


def largest(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Places of k largest of [n] scores, 0 < k <= n, in any order.

    A sample says which score the k best surely reach, and only those at or above it are partitioned: the same
    places at a tenth of the cost when k is a small part of n. Should too few reach it, all are partitioned.
    """
    step = len(scores) // _SAMPLE
    if step > 1:
        sample = scores[::step]
        # Twice the share of k, and a few for small shares.
        rank = 2 * k // step + 16
        if rank < len(sample):
            bound = np.partition(sample, len(sample) - rank)[len(sample) - rank]
            places = np.flatnonzero(scores >= bound)
            if len(places) >= k:
                return places[_partitioned(scores[places], k)]
    return _partitioned(scores, k)


def _partitioned(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    return np.argpartition(scores, len(scores) - k)[len(scores) - k :]
