"""The lake's impressions and actions as a log of events for feature views: one per shown item and per action.

An event's sequence is record offset x PARTS_PER_RECORD + its place in the record, as on feature-events, so
that a cut and the fold's marks mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.contract.feature_events import PARTS_PER_RECORD
from services.contract.view_events import ACTED, ALL_FIELDS, SHOWN, EventKind, event_hash
from services.contract.view_log import EventLog, joined


def event_log(impressions: pa.Table, actions: pa.Table, categories: Mapping[int, int]) -> EventLog:
    """Events of tables of the lake (contract.lake_schema); ``categories``: of items, 0 for the others."""
    return joined([_shown(impressions, categories), _acted(actions, categories)])


def _shown(table: pa.Table, categories: Mapping[int, int]) -> EventLog:
    table = table.filter(pc.equal(table["record"], "event"))
    sizes = pc.fill_null(pc.list_value_length(table["item_ids"]), 0).to_numpy().astype(np.int64)
    items = pc.list_flatten(table["item_ids"]).to_numpy().astype(np.uint64)
    row = np.repeat(np.arange(table.num_rows), sizes)
    place = np.arange(len(items)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = place.copy()
    # A list without positions means 0, 1, 2, ...
    given = pc.fill_null(pc.list_value_length(table["positions"]), 0).to_numpy() > 0
    position[np.repeat(given, sizes)] = pc.list_flatten(table["positions"]).to_numpy()
    fields = {"item_id": items, "category": _categories(items, categories), "position": position}
    return _log(SHOWN, table, row, 1 + place, fields)


def _acted(table: pa.Table, categories: Mapping[int, int]) -> EventLog:
    table = table.filter(pc.equal(table["record"], "event"))
    items = _column(table, "item_id", np.uint64)
    fields = {
        "item_id": items,
        "category": _categories(items, categories),
        "action": _column(table, "kind", np.int64),
        "dwell_s": _column(table, "dwell_us", np.int64),
    }
    row = np.arange(table.num_rows)
    return _log(ACTED, table, row, np.zeros_like(row), fields)


def _categories(items: NDArray[np.uint64], categories: Mapping[int, int]) -> NDArray[np.int64]:
    known, back = np.unique(items, return_inverse=True)
    return np.array([categories.get(item, 0) for item in known.tolist()], np.int64)[back]


def _column(table: pa.Table, name: str, dtype: type) -> NDArray:
    return pc.fill_null(table[name], 0).to_numpy().astype(dtype)


def _log(
    kind: EventKind, table: pa.Table, row: NDArray, place: NDArray, fields: dict[str, NDArray]
) -> EventLog:
    """Events at ``place`` of the records in the table's rows ``row``."""
    fields["user_id"] = _column(table, "user_id", np.uint64)[row]
    for field in ALL_FIELDS.values():
        fields.setdefault(field.name, np.zeros(len(row), np.uint64 if field.type == "id" else np.int64))
    hashes = np.fromiter(map(event_hash, table["event_id"].to_pylist()), np.uint64, table.num_rows)[row]
    partition = _column(table, "partition", np.int32)[row]
    return EventLog(
        np.full(len(row), kind.code, np.uint8),
        _column(table, "occurred_us", np.int64)[row],
        hashes ^ fields["item_id"] if kind is SHOWN else hashes,
        _column(table, "appended_ms", np.int64)[row] * 1000,
        partition,
        _column(table, "offset", np.int64)[row] * PARTS_PER_RECORD + place,
        fields,
        tuple(f"{kind.topic}/{index}" for index in range(int(partition.max(initial=0)) + 1)),
    )
