"""Rows of one embedding table in one contiguous matrix, found by 64-bit id; and the search over the items.

Rows keep no order: a removed row's place is taken by the last one, so the matrix stays dense and a
search is one matrix-vector product. Not thread-safe: one thread owns a table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MIN_ROWS = 1024
# Scores looked at for a bound: enough that twice the expected share holds k nearly always.
_SAMPLE = 4096


class VectorTable:
    """Ids and their rows, [size, width] float32, contiguous."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.size = 0
        self._ids: NDArray[np.uint64] = np.empty(_MIN_ROWS, np.uint64)
        self._rows: NDArray[np.float32] = np.empty((_MIN_ROWS, width), np.float32)
        self._place: dict[int, int] = {}

    @property
    def ids(self) -> NDArray[np.uint64]:
        """[size] ids, in the order of ``rows``; a view."""
        return self._ids[: self.size]

    @property
    def rows(self) -> NDArray[np.float32]:
        """[size, width] rows; a view."""
        return self._rows[: self.size]

    def get(self, key: int) -> NDArray[np.float32] | None:
        """The row of one id (a view), or None."""
        place = self._place.get(key)
        return None if place is None else self._rows[place]

    def upsert(self, ids: NDArray[np.uint64], rows: NDArray[np.float32]) -> None:
        """Writes rows [n, width] under distinct ids [n]; ids that are not there yet are added."""
        if rows.shape != (len(ids), self.width):
            raise ValueError(f"rows of shape {rows.shape} for {len(ids)} ids of width {self.width}")
        self._reserve(self.size + len(ids))
        places = np.empty(len(ids), np.int64)
        for position, key in enumerate(ids.tolist()):
            place = self._place.get(key)
            if place is None:
                place = self._place[key] = self.size
                self._ids[place] = key
                self.size += 1
            places[position] = place
        self._rows[places] = rows

    def remove(self, ids: NDArray[np.uint64]) -> None:
        """Takes ids out; ids that are not there are no matter."""
        for key in ids.tolist():
            place = self._place.pop(key, None)
            if place is None:
                continue
            self.size -= 1
            if place != self.size:
                moved = int(self._ids[self.size])
                self._ids[place] = moved
                self._rows[place] = self._rows[self.size]
                self._place[moved] = place

    def _reserve(self, rows: int) -> None:
        if rows <= len(self._ids):
            return
        capacity = max(rows, len(self._ids) * 3 // 2)
        ids, matrix = np.empty(capacity, np.uint64), np.empty((capacity, self.width), np.float32)
        ids[: self.size], matrix[: self.size] = self.ids, self.rows
        self._ids, self._rows = ids, matrix


def best(items: VectorTable, user: NDArray[np.float32], k: int) -> NDArray[np.uint64]:
    """The k items with the largest <p_u, q_i> + b_i, best first.

    items: rows [factors + 1], the last column is b_i. user: [factors].
    """
    k = min(k, items.size)
    if k <= 0:
        return np.empty(0, np.uint64)
    scores = items.rows @ np.append(user, np.float32(1.0))
    top = largest(scores, k)
    ids = items.ids[top]
    # Equal scores (rows never trained) are ordered by id, so that the answer does not depend on the places.
    return ids[np.lexsort((ids, -scores[top]))]


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
