"""Sums, minima and maxima of many ranges of one column at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
# Pairs held at once: about 100 MB.
MAX_PAIRS = 4_000_000


def prefix_sums(values: NDArray) -> Ints:
    """[m + 1]: the sum of the first k. Wraps beyond 64 bits, and differences are right all the same."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def expand(low: Ints, high: Ints) -> Iterator[tuple[Ints, Ints]]:
    """(range, place) of every place low[i] <= place < high[i], by ranges, at most about MAX_PAIRS at once."""
    sizes = np.maximum(high - low, 0)
    some = np.flatnonzero(sizes)
    ends = np.cumsum(sizes[some])
    first = 0
    while first < len(some):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + MAX_PAIRS, side="right")))
        owner = some[first:last]
        count = sizes[owner]
        # Within each range 0, 1, 2, ...
        inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        yield np.repeat(owner, count), np.repeat(low[owner], count) + inside
        first = last


def extremes(ufunc: np.ufunc, identity: int, values: Ints, low: Ints, high: Ints) -> Ints:
    """The minimum or maximum of each range, ``identity`` of an empty one: two overlapping spans of a power of
    two each; the table of one power is made from that of the one before and then forgotten."""
    sizes = np.maximum(high - low, 0)
    found = np.full(len(low), identity, np.int64)
    power = np.frexp(sizes.astype(np.float64))[1] - 1
    table = values
    for level in range(int(power.max(initial=-1)) + 1):
        if level:
            half = 1 << level - 1
            table = ufunc(table[:-half], table[half:])
        now = np.flatnonzero(power == level)
        found[now] = ufunc(table[low[now]], table[high[now] - (1 << level)])
    return found
