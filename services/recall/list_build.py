"""Makes the lists of a table's items, beside the table's thread: centroids from a sample (k-means), then all
items, some thousand at a time, then how many lists have to be looked into for some users.

Only copying rows out and putting places in takes the table's thread, a millisecond at a time. From the first
copy on, whatever changes in the table is put into the new lists too (``VectorModel.building``), so what was
copied counts only where nothing has come since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.recall.item_lists import ItemLists
from services.recall.list_watch import CHECKS, ListWatch
from services.recall.vector_table import Places, VectorTable, largest, live, query_of

# Looked at for a list's centroid, so many passes: more of either does not find more.
_SAMPLED_PER_LIST = 64
_PASSES = 8
_COPIED_ROWS = 65_536
_ASKED_ITEMS = 1_000

# Runs something on the table's thread and gives its result.
Turn = Callable[[Callable[[], Any]], Any]


@dataclass(frozen=True)
class Listing:
    """Lists that are searched; items, their changes and probes as they were when it was made."""

    lists: ItemLists
    watch: ListWatch
    items: int
    changes: int
    probes: int


class Model(Protocol):
    """Whose lists are made (vectors.VectorModel)."""

    users: VectorTable
    items: VectorTable
    listing: Listing | None
    building: ItemLists | None


def lists_for(items: int) -> int:
    """How many lists: the power of two next to the root, so that centroids and rows of a few lists cost
    alike."""
    return 1 << max(4, round(np.log2(max(items, 1)) / 2))


def build(model: Model, turn: Turn = lambda work: work(), seed: int = 1) -> Listing:
    """Gives a model lists, or new ones; seconds for a million items. ``turn`` stays as it is only for a model
    that nobody else uses yet; else not on the table's thread."""
    random = np.random.default_rng(seed)
    count = lists_for(model.items.size)
    sample = turn(lambda: _sample(model.items, count * _SAMPLED_PER_LIST, random))
    lists, watch = ItemLists(centroids(sample, count, random)), ListWatch(count)

    def begin() -> int:
        model.building = lists
        return len(model.items.rows)

    def end() -> Listing:
        model.building = None
        model.listing = Listing(lists, watch, model.items.size, lists.changes, watch.probes)
        return model.listing

    try:
        known = turn(begin)
        for start in range(0, known, _COPIED_ROWS):
            _list(model, lists, np.arange(start, min(known, start + _COPIED_ROWS)), turn)
        for query in turn(lambda: _queries(model.users, random)):
            found = check(lists, turn(lambda: model.items.rows), query, _ASKED_ITEMS)
            if found is not None:
                watch.add(found)
        watch.begin()
        return turn(end)
    except BaseException:
        turn(lambda: setattr(model, "building", None))
        raise


def _list(model: Model, lists: ItemLists, places: Places, turn: Turn) -> None:
    nearest = lists.nearest(turn(lambda: model.items.rows[places]))

    def put() -> None:
        untouched = (lists.list_of(places) < 0) & live(model.items.rows[places])
        lists.put(places[untouched], nearest[untouched])

    turn(put)


def check(
    lists: ItemLists, rows: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> NDArray[np.int64] | None:
    """By item of the exact answer, how many lists are looked into before its own; None without items. On any
    thread: what changes meanwhile is a row or two of a thousand."""
    scores = rows @ query
    k = min(k, int(np.count_nonzero(scores > -np.inf)))
    if not k:
        return None
    of = lists.list_of(largest(scores, k).astype(np.int64))
    return lists.ranks(query)[of[of >= 0]] if (of >= 0).any() else None


def centroids(
    rows: NDArray[np.float32], count: int, random: np.random.Generator, passes: int = _PASSES
) -> NDArray[np.float32]:
    """k-means: [count, width] of rows [n, width]; a centroid that nobody is nearest to becomes a row."""
    picked = random.choice(len(rows), count, replace=len(rows) < count)
    found = rows[picked].astype(np.float32)
    for _ in range(passes):
        nearest = ItemLists(found).nearest(rows)
        sizes = np.bincount(nearest, minlength=count)
        for column in range(rows.shape[1]):
            found[:, column] = np.bincount(nearest, rows[:, column], count) / np.maximum(sizes, 1)
        empty = np.flatnonzero(sizes == 0)
        found[empty] = rows[random.choice(len(rows), len(empty))]
    return found


def _sample(items: VectorTable, most: int, random: np.random.Generator) -> NDArray[np.float32]:
    rows = items.rows
    picked = rows[random.choice(len(rows), min(len(rows), most), replace=False)]
    return picked[live(picked)]


def _queries(users: VectorTable, random: np.random.Generator) -> list[NDArray[np.float32]]:
    rows = users.rows
    picked = rows[random.choice(len(rows), min(len(rows), CHECKS), replace=False)] if len(rows) else rows
    return [query_of(row) for row in picked[live(picked)]]
