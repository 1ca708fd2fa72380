"""64-bit ids to dense row numbers: an open-addressing table without collisions between ids.

Every id has its own row: nothing is hashed into a shared bucket, so two ids never share a parameter. The
slots are pairs (id, row + 1) side by side, one cache line per probe; 0 marks an empty slot. Linear
probing at a load of at most one half, deletion by shifting back (no tombstones, so lookups do not
slow down with age). Freed rows are given out again, last freed first.

Pure and not thread-safe: one thread writes, or readers and the writer take turns.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

ABSENT = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.uint64(0)
_ONE = np.uint64(1)
_SIZE, _NEXT_ROW, _FREE = 0, 1, 2
_MIN_SLOT_BITS = 6

Ids = NDArray[np.uint64]
Rows = NDArray[np.int64]


@njit(cache=True, nogil=True)
def _lookup(slots, shift, ids, out):  # type: ignore[no-untyped-def]
    mask = slots.shape[0] - 1
    for n in range(ids.shape[0]):
        key = ids[n]
        at = np.int64((key * _GOLDEN) >> shift)
        while slots[at, 1] != _EMPTY and slots[at, 0] != key:
            at = (at + 1) & mask
        out[n] = np.int64(slots[at, 1]) - 1


@njit(cache=True, nogil=True)
def _insert(slots, shift, ids, out, free, counters):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    mask = slots.shape[0] - 1
    for n in range(ids.shape[0]):
        key = ids[n]
        at = np.int64((key * _GOLDEN) >> shift)
        while slots[at, 1] != _EMPTY and slots[at, 0] != key:
            at = (at + 1) & mask
        if slots[at, 1] == _EMPTY:
            if counters[_FREE] > 0:
                counters[_FREE] -= 1
                row = free[counters[_FREE]]
            else:
                row = counters[_NEXT_ROW]
                counters[_NEXT_ROW] += 1
            slots[at, 0] = key
            slots[at, 1] = np.uint64(row) + _ONE
            counters[_SIZE] += 1
        out[n] = np.int64(slots[at, 1]) - 1


@njit(cache=True, nogil=True)
def _delete(slots, shift, ids, out, free, counters):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    mask = slots.shape[0] - 1
    for n in range(ids.shape[0]):
        key = ids[n]
        at = np.int64((key * _GOLDEN) >> shift)
        while slots[at, 1] != _EMPTY and slots[at, 0] != key:
            at = (at + 1) & mask
        out[n] = np.int64(slots[at, 1]) - 1
        if slots[at, 1] == _EMPTY:
            continue
        free[counters[_FREE]] = out[n]
        counters[_FREE] += 1
        counters[_SIZE] -= 1
        hole = at
        probe = (at + 1) & mask
        while slots[probe, 1] != _EMPTY:
            home = np.int64((slots[probe, 0] * _GOLDEN) >> shift)
            # May move back only when its home slot does not lie behind the hole.
            if ((probe - home) & mask) >= ((probe - hole) & mask):
                slots[hole, 0] = slots[probe, 0]
                slots[hole, 1] = slots[probe, 1]
                hole = probe
            probe = (probe + 1) & mask
        slots[hole, 1] = _EMPTY


@njit(cache=True, nogil=True)
def _rehash(old, slots, shift):  # type: ignore[no-untyped-def]
    mask = slots.shape[0] - 1
    for n in range(old.shape[0]):
        if old[n, 1] == _EMPTY:
            continue
        at = np.int64((old[n, 0] * _GOLDEN) >> shift)
        while slots[at, 1] != _EMPTY:
            at = (at + 1) & mask
        slots[at, 0] = old[n, 0]
        slots[at, 1] = old[n, 1]


@njit(cache=True, nogil=True)
def _pairs(slots, ids, rows):  # type: ignore[no-untyped-def]
    at = 0
    for n in range(slots.shape[0]):
        if slots[n, 1] != _EMPTY:
            ids[at] = slots[n, 0]
            rows[at] = np.int64(slots[n, 1]) - 1
            at += 1


class IdTable:
    """Ids to row numbers 0, 1, 2, ... ; rows of deleted ids are used again.

    ``ids`` arguments are uint64 of shape (n,); a row is int64, ABSENT (-1) when the id is not there.
    """

    def __init__(self, capacity: int = 0) -> None:
        self._allocate(_slot_bits(capacity))
        self._free: Rows = np.empty(self._slots.shape[0] // 2, dtype=np.int64)
        self._counters = np.zeros(3, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._counters[_SIZE])

    @property
    def row_limit(self) -> int:
        """One more than the largest row ever given out."""
        return int(self._counters[_NEXT_ROW])

    def lookup(self, ids: Ids) -> Rows:
        """The row of each id, ABSENT where there is none."""
        out = np.empty(ids.shape[0], dtype=np.int64)
        _lookup(self._slots, self._shift, _as_ids(ids), out)
        return out

    def reserve(self, ids: int) -> None:
        """Makes room for so many ids in all."""
        if ids * 2 <= self._slots.shape[0]:
            return
        old = self._slots
        self._allocate(_slot_bits(ids))
        _rehash(old, self._slots, self._shift)
        free = np.empty(self._slots.shape[0] // 2, dtype=np.int64)
        free[: self._counters[_FREE]] = self._free[: self._counters[_FREE]]
        self._free = free

    def insert(self, ids: Ids) -> Rows:
        """The row of each id; new ids get a free row. Repeats within ``ids`` share one row."""
        ids = _as_ids(ids)
        self.reserve(len(self) + ids.shape[0])
        out = np.empty(ids.shape[0], dtype=np.int64)
        _insert(self._slots, self._shift, ids, out, self._free, self._counters)
        return out

    def delete(self, ids: Ids) -> Rows:
        """Frees the row of each id and returns it; ABSENT where there was none."""
        out = np.empty(ids.shape[0], dtype=np.int64)
        _delete(self._slots, self._shift, _as_ids(ids), out, self._free, self._counters)
        return out

    def items(self) -> tuple[Ids, Rows]:
        """All ids, ascending, and their rows."""
        ids, rows = self.unordered()
        order = np.argsort(ids)
        return ids[order], rows[order]

    def unordered(self) -> tuple[Ids, Rows]:
        """All ids and their rows; a hundredth of a second for a million, most of ``items`` is sorting."""
        ids, rows = np.empty(len(self), np.uint64), np.empty(len(self), np.int64)
        _pairs(self._slots, ids, rows)
        return ids, rows

    def copy(self) -> IdTable:
        """A copy that shares nothing."""
        twin = IdTable.__new__(IdTable)
        twin._slots, twin._shift = self._slots.copy(), self._shift
        twin._free, twin._counters = self._free.copy(), self._counters.copy()
        return twin

    def _allocate(self, bits: int) -> None:
        self._slots = np.zeros((1 << bits, 2), dtype=np.uint64)
        self._shift = np.uint64(64 - bits)


def warm_up() -> None:
    """Compiles (or loads from numba's cache) every kernel; call before the first request."""
    table = IdTable()
    ids = np.arange(100, dtype=np.uint64)
    table.insert(ids)
    table.lookup(ids)
    table.unordered()
    table.delete(ids)


def _slot_bits(ids: int) -> int:
    return max(_MIN_SLOT_BITS, (max(ids, 1) * 2 - 1).bit_length())


def _as_ids(ids: Ids) -> Ids:
    # A read-only view (np.frombuffer) is another type to numba and would compile every kernel once more.
    if not ids.flags.writeable:
        return np.array(ids, dtype=np.uint64)
    return np.ascontiguousarray(ids, dtype=np.uint64)
