"""Which ids have changed since the last acknowledged delta. Pure.

    touch() --> [touched] --begin()--> [in flight] --ack()--> gone
                    ^                       |
                    '-------- fail() -------'

An id leaves only with the acknowledgement. One that is touched again while its delta is in flight is in both
sets, and goes out again with the next delta.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.contract import model_schema


@dataclass
class TouchedIds:
    """Changed ids of one table: with a row, with a pending entry, and expired."""

    rows: set[int] = field(default_factory=set)
    pending: set[int] = field(default_factory=set)
    expired: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.rows) + len(self.pending) + len(self.expired)

    def merge(self, other: TouchedIds) -> None:
        """Takes in what another set holds; what happened later, here, decides where an id stands."""
        self.expired |= other.expired - self.rows
        self.rows |= other.rows - self.expired
        self.pending |= other.pending


def ascending(ids: set[int]) -> NDArray[np.uint64]:
    """The ids as a delta wants them."""
    found = np.fromiter(ids, dtype=np.uint64, count=len(ids))
    found.sort()
    return found


def _empty() -> dict[str, TouchedIds]:
    return {name: TouchedIds() for name in model_schema.TABLES}


class Touched:
    """The touched set of a trainer. ``rows`` counts what a delta would carry."""

    def __init__(self) -> None:
        self._touched = _empty()
        self._in_flight: dict[str, TouchedIds] | None = None

    def __len__(self) -> int:
        return sum(len(ids) for ids in self._touched.values())

    @property
    def rows(self) -> int:
        """Rows that wait for the next delta."""
        return sum(len(ids.rows) for ids in self._touched.values())

    @property
    def in_flight(self) -> int:
        """Ids that wait for the acknowledgement."""
        return sum(len(ids) for ids in self._in_flight.values()) if self._in_flight else 0

    def touch(self, table: str, rows: NDArray[Any], pending: NDArray[Any]) -> None:
        """These ids have new rows or new pending entries; a row brings an expired id back."""
        ids = self._touched[table]
        fresh = rows.tolist()
        ids.rows.update(fresh)
        ids.expired.difference_update(fresh)
        ids.pending.update(pending.tolist())

    def expire(self, table: str, rows: NDArray[Any], pending: NDArray[Any]) -> None:
        """These ids have left the table or the pending ones."""
        ids = self._touched[table]
        gone = rows.tolist()
        ids.rows.difference_update(gone)
        ids.expired.update(gone)
        ids.pending.update(pending.tolist())

    def begin(self) -> dict[str, TouchedIds]:
        """Moves everything into flight and gives it; one delta is in flight at a time."""
        if self._in_flight is not None:
            raise RuntimeError("a delta is in flight already")
        self._in_flight, self._touched = self._touched, _empty()
        return self._in_flight

    def ack(self) -> None:
        """Kafka has it: the ids in flight are published."""
        if self._in_flight is None:
            raise RuntimeError("no delta is in flight")
        self._in_flight = None

    def fail(self) -> None:
        """It was not published: the ids wait again, with what was touched meanwhile."""
        if self._in_flight is None:
            raise RuntimeError("no delta is in flight")
        for name, ids in self._in_flight.items():
            self._touched[name].merge(ids)
        self._in_flight = None
