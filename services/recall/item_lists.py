"""The items of a table by the nearest of some centroids (an inverted file): a search looks into those lists
only whose centroids the query likes best, and there it is exact.

A list holds the places of its items in the table, not their rows: an item that changes stays in its list or
moves into another one, and nothing else has to follow. Lists are chains of pages, so one that is much longer
than the others costs no more than its items. Not thread-safe: the table's thread owns the lists.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from services.recall.vector_table import Places, VectorTable, best_first, largest

_PAGE = 64
_CHUNK = 8_192
_NOWHERE = np.int32(-1)


@njit(cache=True, nogil=True)
def _put(pages, after, heads, counts, free, list_of, at, places, lists):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    for n in range(places.shape[0]):
        place, wanted = places[n], lists[n]
        held = list_of[place]
        if held == wanted:
            continue
        list_of[place] = wanted
        if held >= 0:
            # The last of its list takes its spot.
            head = heads[held]
            counts[held] -= 1
            last = counts[held] % _PAGE
            moved, spot = pages[head, last], at[place]
            pages[spot // _PAGE, spot % _PAGE] = moved
            at[moved] = spot
            if last == 0:
                heads[held] = after[head]
                after[head] = free[0]
                free[0] = head
        if wanted >= 0:
            end = counts[wanted] % _PAGE
            if end == 0:
                page = free[0]
                free[0] = after[page]
                after[page] = heads[wanted]
                heads[wanted] = page
            pages[heads[wanted], end] = place
            at[place] = heads[wanted] * _PAGE + end
            counts[wanted] += 1


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _score(rows, pages, after, heads, counts, probed, query, places, scores):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    n = 0
    for p in range(probed.shape[0]):
        left = counts[probed[p]]
        page = heads[probed[p]]
        # Only the first page of a list may have room.
        end = (left - 1) % _PAGE + 1
        while left > 0:
            for m in range(end):
                place = pages[page, m]
                score = np.float32(0)
                for column in range(query.shape[0]):
                    score += rows[place, column] * query[column]
                places[n] = place
                scores[n] = score
                n += 1
            left -= end
            page = after[page]
            end = _PAGE


class ItemLists:
    """Lists of places by centroid, [lists, width] float32."""

    def __init__(self, centroids: NDArray[np.float32]) -> None:
        self.centroids = np.ascontiguousarray(centroids, np.float32)
        self._half = (self.centroids**2).sum(axis=1) / 2
        # Places put into a list or taken out so far.
        self.changes = 0
        self._counts = np.zeros(len(centroids), np.int64)
        self._heads = np.full(len(centroids), _NOWHERE)
        self._pages = np.empty((0, _PAGE), np.int32)
        # The page behind each in its chain, -1: the last. Pages of no list are a chain too, from _free on.
        self._after = np.empty(0, np.int32)
        self._free = np.full(1, _NOWHERE)
        self._list_of = np.full(1, _NOWHERE)
        self._at = np.zeros(1, np.int32)

    def __len__(self) -> int:
        return len(self.centroids)

    @property
    def items(self) -> int:
        """Places in all lists."""
        return int(self._counts.sum())

    def nearest(self, rows: NDArray[np.float32]) -> NDArray[np.int32]:
        """The list that each row [n, width] belongs to. Any thread may ask."""
        found = np.empty(len(rows), np.int32)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            found[start : start + _CHUNK] = np.argmax(part @ self.centroids.T - self._half, axis=1)
        return found

    def list_of(self, places: Places) -> NDArray[np.int32]:
        """The list in which each place is; -1: in none."""
        inside = places < len(self._list_of)
        return np.where(inside, self._list_of[np.where(inside, places, 0)], _NOWHERE)

    def put(self, places: Places, lists: NDArray[np.int32]) -> None:
        """Puts places into lists, out of those in which they are; -1 takes them out."""
        if not len(places):
            return
        self.changes += len(places)
        self._reserve(int(places.max()) + 1, len(places))
        chains = (self._pages, self._after, self._heads, self._counts, self._free)
        _put(*chains, self._list_of, self._at, places, lists)

    def drop(self, places: Places) -> None:
        """Takes places out."""
        self.put(places, np.full(len(places), _NOWHERE))

    def ranks(self, query: NDArray[np.float32]) -> NDArray[np.int64]:
        """By list, how many lists are looked into before it."""
        order = np.argsort(-(self.centroids @ query), kind="stable")
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks

    def best(
        self, items: VectorTable, query: NDArray[np.float32], k: int, probes: int
    ) -> NDArray[np.uint64] | None:
        """The k best items of the first ``probes`` lists, best first; None when they hold fewer."""
        liked = self.centroids @ query
        probes = min(probes, len(liked))
        probed = np.argpartition(liked, len(liked) - probes)[len(liked) - probes :]
        total = int(self._counts[probed].sum())
        if total < k or not k:
            return None
        places, scores = np.empty(total, np.int64), np.empty(total, np.float32)
        chains = (self._pages, self._after, self._heads, self._counts)
        _score(items.rows, *chains, probed, query, places, scores)
        top = largest(scores, k)
        return best_first(items.ids[places[top]], scores[top])

    def _reserve(self, places: int, coming: int) -> None:
        held = len(self._list_of)
        if places > held:
            more = max(places, held * 3 // 2) - held
            self._list_of = np.concatenate([self._list_of, np.full(more, _NOWHERE)])
            self._at = np.concatenate([self._at, np.zeros(more, np.int32)])
        pages = (self.items + coming) // _PAGE + len(self)
        held = len(self._pages)
        if pages > held:
            more = max(pages, held * 3 // 2) - held
            chain = np.arange(held + 1, held + more + 1, dtype=np.int32)
            chain[-1] = self._free[0]
            self._after = np.concatenate([self._after, chain])
            self._free[0] = held
            self._pages = np.concatenate([self._pages, np.empty((more, _PAGE), np.int32)])


def warm_up() -> None:
    """Compiles (or loads from numba's cache) what a search and a delta need; call before the first one."""
    items = VectorTable(2)
    places = items.upsert(np.arange(2, dtype=np.uint64), np.ones((2, 2), np.float32))
    lists = ItemLists(np.ones((1, 2), np.float32))
    lists.put(places, lists.nearest(items.rows))
    lists.best(items, np.ones(2, np.float32), 1, 1)
