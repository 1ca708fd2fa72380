"""The log of day 0 as feature views see it: what of it a seed turns into first states and sorted sets.

Its events stand in one origin of their own, in the order of the day, so that the cut behind the last of them
is a mark which no event of the loop ever meets.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, EventRecord
from services.contract import redis_keys
from services.contract.feature_events import LISTED_US
from services.contract.feature_view import FeatureView
from services.contract.times import to_us
from services.contract.view_events import ACTED, ALL_FIELDS, LISTED, SHOWN, event_hash
from services.contract.view_init import InitialStates, initial_states
from services.contract.view_log import EventLog, joined

ORIGIN = "day0/0"
# As many earlier clicks as feature_pipeline pairs a click with.
CO_CLICK_PAIRS = 5
SCHEMA = pa.schema(
    [
        pa.field("kind", pa.uint8()),
        pa.field("occurred_us", pa.int64()),
        pa.field("event_hash", pa.uint64()),
        pa.field("user_id", pa.uint64()),
        pa.field("item_id", pa.uint64()),
        pa.field("category", pa.int64()),
        pa.field("position", pa.int64()),
        pa.field("action", pa.int64()),
        pa.field("dwell_s", pa.int64()),
    ]
)


def rows(events: list[bytes], categories: Mapping[int, int]) -> list[list[int]]:
    """Columns of SCHEMA of EventRecords; those without view events give none."""
    columns: list[list[int]] = [[] for _ in SCHEMA]

    def add(*values: int) -> None:
        for column, value in zip(columns, values, strict=True):
            column.append(value)

    for raw in events:
        record = EventRecord.FromString(raw)
        if record.HasField("impression"):
            shown = record.impression
            at_us, hashed = to_us(shown.occurred_at), event_hash(shown.event_id)
            for place, item in enumerate(shown.item_ids):
                category = categories[item]
                add(SHOWN.code, at_us, hashed ^ item, shown.user_id, item, category, place, 0, 0)
        elif record.HasField("action"):
            done = record.action
            at_us, hashed = to_us(done.occurred_at), event_hash(done.event_id)
            dwell_us, category = done.dwell.ToMicroseconds(), categories[done.item_id]
            add(ACTED.code, at_us, hashed, done.user_id, done.item_id, category, 0, done.kind, dwell_us)
    return columns


def log_of(table: pa.Table) -> EventLog:
    """The log of a table of SCHEMA, in its order."""
    columns = {name: table.column(name).to_numpy() for name in SCHEMA.names}
    occurred_us = columns.pop("occurred_us")
    return _log(columns.pop("kind"), occurred_us, columns.pop("event_hash"), columns)


def listings(item_ids: NDArray[np.uint64], categories: NDArray, created_us: NDArray[np.int64]) -> EventLog:
    """The catalogue of that day. Of events at the same time the one of the smallest hash is the oldest: what
    Kafka's catalogue says later counts more."""
    count = len(item_ids)
    fields = {"item_id": item_ids, "category": categories.astype(np.int64), "created_at": created_us}
    kind, at_us = np.full(count, LISTED.code, np.uint8), np.full(count, LISTED_US, np.int64)
    return _log(kind, at_us, np.zeros(count, np.uint64), fields)


def _log(
    kind: NDArray[np.uint8],
    occurred_us: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    fields: dict[str, NDArray],
) -> EventLog:
    count = len(kind)
    for field in ALL_FIELDS.values():
        fields.setdefault(field.name, np.zeros(count, np.uint64 if field.type == "id" else np.int64))
    origin = np.zeros(count, np.int32)
    return EventLog(
        kind, occurred_us, hashes, occurred_us, origin, np.arange(count, dtype=np.int64), fields, (ORIGIN,)
    )


def moved(log: EventLog, by_us: int) -> EventLog:
    """As if all had happened ``by_us`` later. What the catalogue says has no time, but births have."""
    listed = log.kind == LISTED.code
    created_us = log.field("created_at")
    born = listed & (created_us != 0)
    fields = {**log.fields, "created_at": np.where(born, created_us + by_us, created_us)}
    occurred_us = np.where(listed, log.occurred_us, log.occurred_us + by_us)
    return replace(log, occurred_us=occurred_us, fields=fields)


def whole(events: EventLog, listed: EventLog) -> EventLog:
    """Both, the listings behind."""
    both = joined([events, listed])
    return replace(both, sequence=np.arange(len(both), dtype=np.int64))


def states(view: FeatureView, log: EventLog) -> InitialStates:
    """The states of a view after all of it."""
    return initial_states(view, log, {ORIGIN: len(log)})


def clicks(log: EventLog) -> EventLog:
    """The clicks, in order."""
    return log.take(np.flatnonzero((log.kind == ACTED.code) & (log.field("action") == ACTION_KIND_CLICK)))


def popular(log: EventLog) -> dict[int, dict[int, int]]:
    """hop -> item id -> clicks, of the hops that recall still reads at the end of the day."""
    clicked = clicks(log)
    hops = clicked.occurred_us // redis_keys.POPULAR_HOP_US
    counted: dict[int, dict[int, int]] = {}
    newest = int(hops.max(initial=0))
    for hop in range(newest - redis_keys.POPULAR_HOPS + 1, newest + 1):
        ids, counts = np.unique(clicked.field("item_id")[hops == hop], return_counts=True)
        if len(ids):
            counted[hop] = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return counted


def co_clicks(log: EventLog) -> list[tuple[int, int, int]]:
    """(item id, other id, how often), the most frequent CO_CLICK_KEEP of each item."""
    clicked = clicks(log)
    last: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=CO_CLICK_PAIRS))
    pairs: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for user, item in zip(clicked.field("user_id").tolist(), clicked.field("item_id").tolist(), strict=True):
        for other in set(last[user]) - {item}:
            pairs[item][other] += 1
            pairs[other][item] += 1
        last[user].append(item)
    return [
        (item, other, count)
        for item, others in pairs.items()
        for other, count in sorted(others.items(), key=lambda pair: (-pair[1], pair[0]))[
            : redis_keys.CO_CLICK_KEEP
        ]
    ]
