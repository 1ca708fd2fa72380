"""A log in the order of entity and event time, where every question is a binary search.

A row's key is entity code << bits | rank of its event time. Entities that nobody asks for are left out first.
So "the rows of entity e before time t" end at one search, and all labels search at once.

For ``as_served`` each row also has the rank of its available time. In the order of event time the rows that
were there at a moment are, but for disorder, a prefix: everything before ``sure`` was there (running maximum
of the ranks), nothing from ``end`` on (running minimum from the end), and between them each row is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.contract.feature_view import FeatureView
from services.contract.view_log import EventLog, Labels

Ints = NDArray[np.int64]


def entity_codes(key: tuple[str, ...], columns: list[NDArray], labels: Labels) -> tuple[Ints, Ints]:
    """(code of each row of the key ``columns`` of a log, -1 when no label asks for its entity; code of each
    label), dense from 0."""
    rows, asked = np.zeros(1, np.int64), np.zeros(len(labels.at_us), np.int64)
    for index, (name, column) in enumerate(zip(key, columns, strict=True)):
        row, ask = _coded(column, labels.fields[name])
        if index == 0:
            rows, asked = row, ask
            continue
        width = int(ask.max(initial=0)) + 1
        joined = np.where((rows < 0) | (row < 0), -1, rows * width + row)
        rows, asked = _coded(joined, asked * width + ask)
    return rows, asked


def _coded(values: NDArray, wanted: NDArray) -> tuple[Ints, Ints]:
    known = pc.unique(pa.array(wanted))
    rows = pc.fill_null(pc.index_in(pa.array(values), known), -1)
    return rows.to_numpy().astype(np.int64), pc.index_in(pa.array(wanted), known).to_numpy().astype(np.int64)


@dataclass(frozen=True)
class Ordered:
    """``rows`` [m]: of the log, in order. ``us``: their event times; ``times``: these sorted alone.
    ``arrived`` [m]: ranks of their available times, None in ``ideal``. The label side: ``code`` [n],
    ``in_turn`` [n]: the labels by time, and, in ``as_served``, ``came`` [n]: how many of all available times
    are below the label's wall time."""

    rows: Ints
    us: Ints
    keys: Ints
    bits: int
    times: Ints
    code: Ints
    in_turn: Ints
    arrived: Ints | None = None
    came: Ints | None = None

    def before(self, us: Ints) -> Ints:
        """[n]: the place of the first row of the label's entity at or after ``us`` [n]."""
        # In the order of the labels' times the bounds rise (nearly): each search starts where the last ended.
        rank = np.empty(len(us), np.int64)
        rank[self.in_turn] = np.searchsorted(self.times, us[self.in_turn])
        return self._search(self.keys, rank)

    def start(self) -> Ints:
        """[n]: the place of the entity's first row."""
        return self._search(self.keys, np.int64(0))

    def presence(self, before_us: Ints) -> tuple[Ints, Ints]:
        """[n] places (sure, end): see above. Ideal: what happened before ``before_us`` was there."""
        if self.arrived is None or self.came is None:
            end = self.before(before_us)
            return end, end
        places = (self.keys >> self.bits) << self.bits | self.arrived
        most = np.maximum.accumulate(places)
        least = np.minimum.accumulate(places[::-1])[::-1]
        return self._search(most, self.came), self._search(least, self.came)

    def there(self, label: Ints, place: Ints) -> tuple[Ints, Ints]:
        """Those of the pairs whose row was there when the label was asked."""
        if self.arrived is None or self.came is None:
            return label, place
        there = self.arrived[place] < self.came[label]
        return label[there], place[there]

    def _search(self, keys: Ints, rank: Ints | np.int64) -> Ints:
        return np.searchsorted(keys, self.code << self.bits | rank)

    def part(self, places: Ints) -> Ordered:
        """Some of the rows, in the order given, which must not leave that of the keys."""
        arrived = None if self.arrived is None else self.arrived[places]
        return Ordered(
            self.rows[places],
            self.us[places],
            self.keys[places],
            self.bits,
            self.times,
            self.code,
            self.in_turn,
            arrived,
            self.came,
        )


def ordered(view: FeatureView, log: EventLog, labels: Labels, lag_us: int | None) -> Ordered:
    """The rows of a view that labels ask for. ``lag_us`` None: ideal."""
    taken = log.takes(view)
    rows = None if taken.all() else np.flatnonzero(taken)
    codes, asked = entity_codes(view.key, [_some(log.field(name), rows) for name in view.key], labels)
    codes = np.broadcast_to(codes, len(log) if rows is None else len(rows))
    wanted = codes >= 0
    if not wanted.all():
        rows = np.flatnonzero(wanted) if rows is None else rows[wanted]
        codes = codes[wanted]
    times = _some(log.occurred_us, rows)
    by_time: Ints | None = None
    rank = np.arange(len(times))
    if (times[1:] < times[:-1]).any():
        by_time = np.argsort(times, kind="stable")
        rank[by_time] = np.arange(len(times))
        times = times[by_time]
    bits = max(1, len(times).bit_length())
    keys = codes << bits | rank
    # Sorting values is several times faster than sorting indices.
    keys.sort()
    place = keys & (1 << bits) - 1
    # Equal times share the first one's rank.
    same = times[1:] == times[:-1]
    if same.any():
        first = np.arange(len(times))
        first[1:][same] = 0
        keys = keys >> bits << bits | np.maximum.accumulate(first)[place]
    us = times[place]
    place = place if by_time is None else by_time[place]
    rows = place if rows is None else rows[place]
    in_turn = np.argsort(labels.at_us)
    if lag_us is None:
        return Ordered(rows, us, keys, bits, times, asked, in_turn)
    assert labels.wall_us is not None
    available = log.appended_us[rows] + lag_us
    in_time = np.argsort(available, kind="stable")
    arrived = np.empty(len(rows), np.int64)
    arrived[in_time] = np.arange(len(rows))
    came = np.searchsorted(available[in_time], labels.wall_us)
    return Ordered(rows, us, keys, bits, times, asked, in_turn, arrived, came)


def _some(column: NDArray, rows: Ints | None) -> NDArray:
    return column if rows is None else column[rows]
