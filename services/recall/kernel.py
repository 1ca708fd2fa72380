"""Compiled loops over ids: what numpy does by sorting a thousand of them several times.

A table of twice as many slots as ids (a power of two, probed in a row) says which were there before. All in
one file: numba keeps compiled code by the file of the function.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ids = NDArray[np.uint64]
_compiled = njit(cache=True, nogil=True)
# 2^64 over the golden ratio: spreads ids that follow each other.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@_compiled
def _slots(count):  # type: ignore[no-untyped-def]
    """An empty table for ``count`` ids: -1, else an id's place."""
    size = 16
    while size < 2 * count:
        size *= 2
    return np.full(size, -1, np.int64)


@_compiled
def _slot(slots, ids, wanted):  # type: ignore[no-untyped-def]
    """The slot that holds the place of ``wanted`` in ``ids``, or where it belongs."""
    mask = np.uint64(slots.shape[0] - 1)
    # The upper bits: those of a product are mixed best.
    slot = ((wanted * _SPREAD) >> np.uint64(32)) & mask
    while slots[slot] >= 0 and ids[slots[slot]] != wanted:
        slot = (slot + np.uint64(1)) & mask
    return slot


@_compiled
def _table(ids):  # type: ignore[no-untyped-def]
    """The table of all ids."""
    slots = _slots(ids.shape[0])
    for place in range(ids.shape[0]):
        slots[_slot(slots, ids, ids[place])] = place
    return slots


@_compiled
def interleaved(ids, ends, shares, tags):  # type: ignore[no-untyped-def]
    """Sources' ids one source after the other ([n] uint64, source s ends at ``ends[s]``) -> (distinct ids,
    bits [m] uint8) by their places (rank + 1/2) / shares[s], the smaller s first where places are equal; the
    first of equal ids stands and carries the tags of all."""
    total = ids.shape[0]
    chosen, bits = np.empty(total, np.uint64), np.empty(total, np.uint8)
    slots = _slots(total)
    at = np.zeros(ends.shape[0], np.int64)
    at[1:] = ends[:-1]
    begins = at.copy()
    found = 0
    for _ in range(total):
        best, nearest = -1, np.inf
        for source in range(ends.shape[0]):
            if at[source] < ends[source]:
                place = (at[source] - begins[source] + 0.5) / shares[source]
                if place < nearest:
                    best, nearest = source, place
        taken = ids[at[best]]
        at[best] += 1
        slot = _slot(slots, chosen, taken)
        if slots[slot] < 0:
            slots[slot] = found
            chosen[found], bits[found] = taken, tags[best]
            found += 1
        else:
            bits[slots[slot]] |= tags[best]
    return chosen[:found], bits[:found]


@_compiled
def without(ids, taken, limit):  # type: ignore[no-untyped-def]
    """The first ``limit`` of ``ids`` that are not among ``taken``, in their order."""
    slots = _table(taken)
    kept = np.empty(min(limit, ids.shape[0]), np.uint64)
    found = 0
    for place in range(ids.shape[0]):
        if found == kept.shape[0]:
            break
        if slots[_slot(slots, taken, ids[place])] < 0:
            kept[found] = ids[place]
            found += 1
    return kept[:found]


@_compiled
def absent(ids, taken):  # type: ignore[no-untyped-def]
    """[n] bool: which of ``ids`` are not among ``taken``."""
    slots = _table(taken)
    found = np.empty(ids.shape[0], np.bool_)
    for place in range(ids.shape[0]):
        found[place] = slots[_slot(slots, taken, ids[place])] < 0
    return found


@_compiled
def summed(ids, amounts):  # type: ignore[no-untyped-def]
    """Distinct ids in the order of their first, and the sum of each one's amounts in theirs."""
    distinct, sums = np.empty(ids.shape[0], np.uint64), np.empty(ids.shape[0], np.float64)
    slots = _slots(ids.shape[0])
    found = 0
    for place in range(ids.shape[0]):
        slot = _slot(slots, distinct, ids[place])
        if slots[slot] < 0:
            slots[slot] = found
            distinct[found], sums[found] = ids[place], amounts[place]
            found += 1
        else:
            sums[slots[slot]] += amounts[place]
    return distinct[:found], sums[:found]


def warm_up() -> None:
    """Compiles them, or loads what was compiled; before the first request, not in it."""
    ids: Any = np.arange(2, dtype=np.uint64)
    interleaved(ids, np.array([1, 2]), np.ones(2), np.ones(2, np.uint8))
    without(ids, ids, 1)
    absent(ids, ids)
    summed(ids, np.ones(2))
