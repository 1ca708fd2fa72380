"""The newest events of each label's entity, in the exact order: (event time, event hash, fields)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.contract.view_asof_order import Ints, Ordered
from services.contract.view_asof_reduce import expand


def in_tie_order(order: Ordered, columns: Sequence[NDArray]) -> Ordered:
    """Rows of one entity and time ordered by ``columns`` (of the log, most significant first); of equal rows
    the one that was there first remains."""
    same = order.keys[1:] == order.keys[:-1]
    if not same.any():
        return order
    tied = np.zeros(len(order.keys), bool)
    tied[1:] |= same
    tied[:-1] |= same
    at = np.flatnonzero(tied)
    rows = order.rows[at]
    arrived = np.zeros(len(at), np.int64) if order.arrived is None else order.arrived[at]
    places = np.arange(len(order.keys))
    by = (arrived, *(column[rows] for column in reversed(columns)), order.keys[at])
    places[at] = at[np.lexsort(by)]
    rows = order.rows[places]
    repeated = np.zeros(len(places), bool)
    repeated[1:] = same & np.logical_and.reduce([c[rows[1:]] == c[rows[:-1]] for c in columns])
    return order.part(places[~repeated])


def newest_places(order: Ordered, edge_us: Ints, keep: int) -> tuple[Ints, NDArray[np.bool_]]:
    """([n, keep] places, newest first; [n, keep] whether there is one) among what was there."""
    start = order.start()
    sure, end = order.presence(edge_us)
    sure, end = np.maximum(sure, start), np.maximum(end, start)
    if order.arrived is None:
        place = end[:, None] - 1 - np.arange(keep)
        filled = place >= start[:, None]
        return np.where(filled, place, 0), filled
    place = np.zeros((len(end), keep), np.int64)
    filled = np.zeros((len(end), keep), bool)
    # Of what was there for sure, no more than ``keep`` can be among the newest.
    for pairs in expand(np.maximum(start, sure - keep), end):
        label, found = order.there(*pairs)
        last = np.searchsorted(label, label, side="right") - 1
        back = last - np.arange(len(label))
        near = back < keep
        place[label[near], back[near]] = found[near]
        filled[label[near], back[near]] = True
    return place, filled
