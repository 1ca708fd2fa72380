"""A table as it was at one moment, read while the table is written on: what a base is made of.

    freeze: the ids of that moment and their places --> chunks gathered from the table as it is
    a row that is about to change  --> its values are kept here first, once

So a base costs its ids and the rows that change while it is written, not a second model; and learning waits
for a chunk of rows at most. One thread writes the table, another one reads; the table's lock is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.contract.delta import TableChange

if TYPE_CHECKING:
    from services.contract.model_table import TableState

TABLE_COLUMNS = ("rows", "optimizer", "counts", "last_seen_us")
PENDING_COLUMNS = ("pending_ids", "pending_counts", "pending_last_seen_us")
# Gathered in a millisecond.
CHUNK_ROWS = 8_192

PendingItems = tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.int64]]


class FrozenTable:
    """Made of ids in any order and their slots; ``pending`` by column name. One thread reads."""

    def __init__(
        self, table: TableState, ids: NDArray[np.uint64], slots: NDArray[np.int64], pending: PendingItems
    ) -> None:
        self._ids = ids
        self._sorted = False
        self.pending: dict[str, NDArray] = dict(zip(PENDING_COLUMNS, pending, strict=True))
        self._table = table
        self._slots = slots
        # By slot: 1 + place among the kept rows, 0 = the table still has it as it was, -1 = of no row here.
        self._place = np.full(int(slots.max(initial=0)) + 1, -1, np.int32)
        self._place[slots] = 0
        self._kept = {name: getattr(table, name)[:0].copy() for name in TABLE_COLUMNS}
        self.rows_kept = 0

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> NDArray[np.uint64]:
        """Ascending [n]: sorted when they are first read, where nobody waits for it."""
        if not self._sorted:
            order = np.argsort(self._ids)
            self._ids, self._slots, self._sorted = self._ids[order], self._slots[order], True
        return self._ids

    def keep(self, slots: NDArray[np.int64]) -> None:
        """These rows are about to change. The table calls this, holding its lock."""
        slots = slots[slots < len(self._place)]
        fresh = np.unique(slots[self._place[slots] == 0])
        end = self.rows_kept + len(fresh)
        for name, kept in self._kept.items():
            self._kept[name] = grown(kept, end)
            self._kept[name][self.rows_kept : end] = getattr(self._table, name)[fresh]
        self._place[fresh] = np.arange(self.rows_kept, end) + 1
        self.rows_kept = end

    def column(self, name: str) -> Iterator[NDArray]:
        """One of TABLE_COLUMNS in the order of the ids, some thousand rows at a time."""
        for start in range(0, len(self.ids), CHUNK_ROWS):
            yield self._gather(self._slots[start : start + CHUNK_ROWS], (name,))[0]

    def changes(self, table: str) -> Iterator[TableChange]:
        """The rows as changes of some thousand each, then the pending ids."""
        for start in range(0, len(self.ids), CHUNK_ROWS):
            cut = slice(start, start + CHUNK_ROWS)
            yield TableChange(table, self.ids[cut], *self._gather(self._slots[cut], TABLE_COLUMNS))
        yield TableChange(table, **self.pending)

    def _gather(self, slots: NDArray[np.int64], names: tuple[str, ...]) -> list[NDArray]:
        with self._table.lock:
            found = [getattr(self._table, name).take(slots, axis=0) for name in names]
            places = self._place[slots]
            moved = np.flatnonzero(places > 0)
            if len(moved):
                for values, name in zip(found, names, strict=True):
                    values[moved] = self._kept[name][places[moved] - 1]
        return found


def grown(values: NDArray, rows: int) -> NDArray:
    """An array with room for ``rows`` rows, zeros behind those that there are; the same one when it has."""
    if rows <= values.shape[0]:
        return values
    larger = np.zeros((max(rows, values.shape[0] * 2), *values.shape[1:]), dtype=values.dtype)
    larger[: values.shape[0]] = values
    return larger
