"""The lake's impressions, actions and items as a log of events for feature views: one per shown item, per
action, and per listing of the catalogue.

An event's sequence is record offset x PARTS_PER_RECORD + its place in the record, as on feature-events, so
that a cut and the fold's marks mean the same.

Repeats (contract.repeats) are left out, as the stream's split leaves them out.

The category of an event is the one that the stream's split gives it: of the item's newest listing appended no
later than the event. An item is listed before it is shown, so there is one; should compaction of the topic
have taken it before the lake read it, the oldest that is left stands in. 0: never listed.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.contract.feature_events import PARTS_PER_RECORD
from services.contract.repeats import repeats
from services.contract.view_events import ACTED, ALL_FIELDS, LISTED, SHOWN, EventKind, event_hash
from services.contract.view_log import EventLog, joined

Ints = NDArray[np.int64]
# What the catalogue says holds for all time.
LISTED_US = 0
COLUMNS = {
    "impressions": [
        *("partition", "offset", "appended_ms", "record", "event_id", "occurred_us", "user_id"),
        *("item_ids", "positions"),
    ],
    "actions": [
        *("partition", "offset", "appended_ms", "record", "event_id", "occurred_us", "user_id"),
        *("item_id", "kind", "dwell_us"),
    ],
    "items": ["partition", "offset", "appended_ms", "record", "item_id", "category", "created_us"],
}


def event_log(impressions: pa.Table, actions: pa.Table, items: pa.Table) -> EventLog:
    """Events of tables of the lake (contract.lake_schema), of COLUMNS at least."""
    listings = Listings(_events(items))
    return joined([_shown(_once(impressions), listings), _acted(_once(actions), listings), listings.log()])


def _events(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["record"], "event"))


def _once(table: pa.Table) -> pa.Table:
    """The events without the repeats that the stream's split leaves out."""
    events = _events(table)
    again = repeats(
        _column(events, "partition", np.int32), _column(events, "offset", np.int64), events["event_id"]
    )
    return events.filter(pa.array(~again)) if again.any() else events


class Listings:
    """What the catalogue has said, when."""

    def __init__(self, items: pa.Table) -> None:
        self._table = items
        self._appended = _column(items, "appended_ms", np.int64)
        self._item = _column(items, "item_id", np.uint64)
        self._category = _column(items, "category", np.int64)
        self._ids, code = np.unique(self._item, return_inverse=True)
        # When, as a rank: so that (item, when) is one sorted column.
        self._times = np.unique(self._appended)
        order = np.lexsort((_column(items, "offset", np.int64), self._appended, code))
        self._ordered = order
        self._keys = self._key(code[order], self._appended[order])

    def _key(self, code: Ints, appended_ms: Ints) -> Ints:
        return code * (len(self._times) + 1) + np.searchsorted(self._times, appended_ms, side="right")

    def category(self, items: NDArray[np.uint64], appended_ms: Ints) -> Ints:
        """[n] of items at moments of the log."""
        if not len(self._ids):
            return np.zeros(len(items), np.int64)
        code = np.minimum(np.searchsorted(self._ids, items), len(self._ids) - 1)
        first = np.searchsorted(self._keys, code * (len(self._times) + 1))
        place = np.searchsorted(self._keys, self._key(code, appended_ms), side="right") - 1
        found = self._category[self._ordered[np.maximum(place, first)]]
        return np.where(self._ids[code] == items, found, 0)

    def log(self) -> EventLog:
        """The listings as events, as feature_events says: for all time, told apart by their place."""
        table = self._table
        fields = {
            "item_id": self._item,
            "category": self._category,
            "created_at": _column(table, "created_us", np.int64),
        }
        hashes = _column(table, "offset", np.uint64) * np.uint64(PARTS_PER_RECORD)
        row = np.arange(table.num_rows)
        return _log(LISTED, table, (row, np.zeros_like(row)), fields, hashes)


def _shown(table: pa.Table, listings: Listings) -> EventLog:
    sizes = pc.fill_null(pc.list_value_length(table["item_ids"]), 0).to_numpy().astype(np.int64)
    items = pc.list_flatten(table["item_ids"]).to_numpy().astype(np.uint64)
    row = np.repeat(np.arange(table.num_rows), sizes)
    place = np.arange(len(items)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = place.copy()
    # A list without positions means 0, 1, 2, ...
    given = pc.fill_null(pc.list_value_length(table["positions"]), 0).to_numpy() > 0
    position[np.repeat(given, sizes)] = pc.list_flatten(table["positions"]).to_numpy()
    category = listings.category(items, _column(table, "appended_ms", np.int64)[row])
    fields = {"item_id": items, "category": category, "position": position}
    return _log(SHOWN, table, (row, 1 + place), fields, _hashes(table)[row] ^ items)


def _acted(table: pa.Table, listings: Listings) -> EventLog:
    items = _column(table, "item_id", np.uint64)
    fields = {
        "item_id": items,
        "category": listings.category(items, _column(table, "appended_ms", np.int64)),
        "action": _column(table, "kind", np.int64),
        "dwell_s": _column(table, "dwell_us", np.int64),
    }
    row = np.arange(table.num_rows)
    return _log(ACTED, table, (row, np.zeros_like(row)), fields, _hashes(table))


def _hashes(table: pa.Table) -> NDArray[np.uint64]:
    return np.fromiter(map(event_hash, table["event_id"].to_pylist()), np.uint64, table.num_rows)


def _column(table: pa.Table, name: str, dtype: type) -> NDArray:
    return pc.fill_null(table[name], 0).to_numpy().astype(dtype)


def _log(
    kind: EventKind,
    table: pa.Table,
    at: tuple[Ints, Ints],
    fields: dict[str, NDArray],
    hashes: NDArray[np.uint64],
) -> EventLog:
    """``at``: of each event, the row of its record in the table, and its place in the record."""
    row, place = at
    if "user_id" in table.schema.names:
        fields["user_id"] = _column(table, "user_id", np.uint64)[row]
    for field in ALL_FIELDS.values():
        fields.setdefault(field.name, np.zeros(len(row), np.uint64 if field.type == "id" else np.int64))
    if kind is LISTED:
        occurred = np.full(len(row), LISTED_US, np.int64)
    else:
        occurred = _column(table, "occurred_us", np.int64)[row]
    partition = _column(table, "partition", np.int32)[row]
    return EventLog(
        np.full(len(row), kind.code, np.uint8),
        occurred,
        hashes,
        _column(table, "appended_ms", np.int64)[row] * 1000,
        partition,
        _column(table, "offset", np.int64)[row] * PARTS_PER_RECORD + place,
        fields,
        tuple(f"{kind.topic}/{index}" for index in range(int(partition.max(initial=0)) + 1)),
    )
