"""One embedding table of a model: rows by 64-bit id, and ids that are seen but not yet admitted. Numpy only.

A table keeps row 0 of its matrices at zero, and ``slots`` gives 0 for an id that it does not have: a
gather needs no mask, and an unknown id scores like one that was never trained.

Not thread-safe, but for ``freeze``: whoever applies a delta and whoever reads take turns on one thread, and a
frozen table is read on another one meanwhile.
"""

from __future__ import annotations

import threading
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from services.contract import model_schema
from services.contract.delta import TableChange
from services.contract.id_table import IdTable
from services.contract.model_frozen import TABLE_COLUMNS, FrozenTable, grown

_MIN_ROWS = 64
# A table that grows by more than so many times holds next to nothing.
_SMALL_PART = 8
ALL_COLUMNS = slice(0, model_schema.ROW_WIDTH)


class Pending:
    """Ids seen but not yet admitted: how often (uint32), and when last (event time, microseconds)."""

    def __init__(self) -> None:
        self._index = IdTable()
        self._counts = np.zeros(_MIN_ROWS, dtype=np.uint32)
        self._last_seen_us = np.zeros(_MIN_ROWS, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def get(self, ids: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Counts and last times of ids [n]; 0 for an id that is not pending."""
        rows = self._index.lookup(ids)
        known = rows >= 0
        counts = np.where(known, self._counts[rows], np.uint32(0)).astype(np.uint32)
        return counts, np.where(known, self._last_seen_us[rows], np.int64(0))

    def set(
        self, ids: NDArray[np.uint64], counts: NDArray[np.uint32], last_seen_us: NDArray[np.int64]
    ) -> None:
        """Writes distinct ids [n]; a count of 0 forgets the id."""
        keep = counts > 0
        self._index.delete(ids[~keep])
        rows = self._index.insert(ids[keep])
        self._counts = grown(self._counts, self._index.row_limit)
        self._last_seen_us = grown(self._last_seen_us, self._index.row_limit)
        self._counts[rows] = counts[keep]
        self._last_seen_us[rows] = last_seen_us[keep]

    def items(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.int64]]:
        """Ids ascending, their counts, their last times."""
        ids, rows = self._index.items()
        return ids, self._counts[rows], self._last_seen_us[rows]

    def copy(self) -> Pending:
        """A copy that shares nothing."""
        twin = Pending.__new__(Pending)
        twin._index = self._index.copy()
        twin._counts, twin._last_seen_us = self._counts.copy(), self._last_seen_us.copy()
        return twin


class TableState:
    """One embedding table.

    ``rows`` float32 [capacity, width], ``optimizer`` float32 [capacity, OPTIMIZER_WIDTH], ``counts``
    uint32, ``last_seen_us`` int64 [capacity]; index them with ``slots``, change them by ``write``. The
    arrays may be replaced when the table grows: take them anew after each change. ``columns`` keeps only that
    part of each row and drops the rest (recall needs a half); such a light table has no optimizer, counts or
    pending ids, no digest, and is not frozen.
    """

    def __init__(self, kept: slice = ALL_COLUMNS) -> None:
        self.columns = kept
        self.light = kept != ALL_COLUMNS
        self._index = IdTable()
        width = len(range(*kept.indices(model_schema.ROW_WIDTH)))
        self.rows = np.zeros((_MIN_ROWS, width), dtype=np.float32)
        trained = 0 if self.light else _MIN_ROWS
        self.optimizer = np.zeros((trained, model_schema.OPTIMIZER_WIDTH), dtype=np.float32)
        self.counts = np.zeros(trained, dtype=np.uint32)
        self.last_seen_us = np.zeros(trained, dtype=np.int64)
        self.pending = Pending()
        # Held while rows change, and by who reads a frozen table for a chunk of them.
        self.lock = threading.Lock()
        self._frozen: WeakSet[FrozenTable] = WeakSet()

    def __len__(self) -> int:
        return len(self._index)

    def slots(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row number of each id [n], 0 (a row of zeros) where it has none."""
        found = self._index.lookup(ids)
        found += 1
        return found

    def reserve(self, rows: int) -> None:
        """Makes the table as large as so many rows need, at once."""
        self._index.reserve(rows)
        self._fit(rows)

    def add(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row number of each id; a new id gets a row of zeros."""
        slots = self._index.insert(ids) + 1
        self._fit(self._index.row_limit)
        return slots

    def write(
        self,
        slots: NDArray[np.int64],
        rows: NDArray[np.float32],
        optimizer: NDArray[np.float32],
        counts: NDArray[np.uint32],
        last_seen_us: NDArray[np.int64],
    ) -> None:
        """New values of distinct slots [n]; a light table takes the rows alone."""
        with self.lock:
            self._keep(slots)
            self.rows[slots] = rows
            if not self.light:
                self.optimizer[slots] = optimizer
                self.counts[slots] = counts
                self.last_seen_us[slots] = last_seen_us

    def remove(self, ids: NDArray[np.uint64]) -> None:
        """Takes ids out and zeroes their rows; an id that is not there is no matter."""
        slots = self._index.delete(ids) + 1
        slots = slots[slots > 0]
        with self.lock:
            self._keep(slots)
            for name in self._columns:
                getattr(self, name)[slots] = 0

    def ids(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """All ids ascending, and their row numbers."""
        ids, rows = self._index.items()
        rows += 1
        return ids, rows

    def apply(self, change: TableChange) -> None:
        """Writes a checked change: tombstones first, then rows, then pending ids."""
        self.remove(change.expired_ids)
        slots = self.add(change.ids)
        rows = change.rows[:, self.columns]
        self.write(slots, rows, change.optimizer, change.counts, change.last_seen_us)
        if not self.light:
            self.pending.set(change.pending_ids, change.pending_counts, change.pending_last_seen_us)

    def freeze(self) -> FrozenTable:
        """The table as it is now, to be read while it is written on. Whoever writes it calls this."""
        ids, rows = self._index.unordered()
        rows += 1
        frozen = FrozenTable(self, ids, rows, self.pending.items())
        self._frozen.add(frozen)
        return frozen

    def copy(self) -> TableState:
        """A copy that shares nothing."""
        twin = TableState(self.columns)
        twin._index, twin.pending = self._index.copy(), self.pending.copy()
        for name in self._columns:
            setattr(twin, name, getattr(self, name).copy())
        return twin

    @property
    def _columns(self) -> tuple[str, ...]:
        return ("rows",) if self.light else TABLE_COLUMNS

    def _keep(self, slots: NDArray[np.int64]) -> None:
        if self._frozen:
            for frozen in self._frozen:
                frozen.keep(slots)

    def _fit(self, rows: int) -> None:
        """So many rows, beside row 0."""
        if rows >= len(self.rows):
            with self.lock:
                self._grow(rows + 1)

    def _grow(self, rows: int) -> None:
        """In place, so that a large table never stands in memory twice; where somebody looks at an array,
        it stays his, and a larger one takes its place. So it is with one that holds next to nothing yet: in
        place the new part is written with zeros while no other thread may run, 60 ms for 100 MB."""
        for name in self._columns:
            held = len(getattr(self, name))
            shape = getattr(self, name).shape[1:]
            if held * _SMALL_PART < rows:
                setattr(self, name, grown(getattr(self, name), rows))
                continue
            try:
                # Not by a name of its own: any further reference forbids it.
                getattr(self, name).resize((max(rows, held * 9 // 8), *shape))
            except ValueError:
                setattr(self, name, grown(getattr(self, name), rows))
