"""The log of day 0 as feature views see it, in a file, and what a seed makes of it: states and sorted sets.

In a seeded stack its events stand in one origin of their own, so that the cut behind the last of them is a
mark that no event of the loop ever meets.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadgen import day0_clicks
from services.contract import redis_keys
from services.contract.feature_view import FeatureView
from services.contract.view_events import ALL_FIELDS, LISTED
from services.contract.view_init import InitialStates, initial_states
from services.contract.view_log import EventLog

ORIGIN = "day0/0"
SCHEMA = pa.schema(
    [
        pa.field("kind", pa.uint8()),
        pa.field("occurred_us", pa.int64()),
        pa.field("event_hash", pa.uint64()),
        *(
            pa.field(field.name, pa.uint64() if field.type == "id" else pa.int64())
            for field in ALL_FIELDS.values()
        ),
    ]
)


def columns(log: EventLog) -> list[NDArray]:
    """Of SCHEMA."""
    fields = [log.field(name) for name in SCHEMA.names[3:]]
    return [log.kind, log.occurred_us, log.event_hash, *fields]


def log_of(table: pa.Table) -> EventLog:
    """The log of a table of SCHEMA."""
    kind, occurred_us, event_hash, *fields = (table.column(name).to_numpy() for name in SCHEMA.names)
    rows = len(kind)
    return EventLog(
        kind,
        occurred_us,
        event_hash,
        occurred_us,
        np.zeros(rows, np.int32),
        np.arange(rows, dtype=np.int64),
        dict(zip(SCHEMA.names[3:], fields, strict=True)),
        (ORIGIN,),
    )


def moved(log: EventLog, by_us: int) -> EventLog:
    """As if all had happened ``by_us`` later. What the catalogue says has no time, but births have."""
    listed, created_us = log.kind == LISTED.code, log.field("created_at")
    born = listed & (created_us != 0)
    fields = {**log.fields, "created_at": np.where(born, created_us + by_us, created_us)}
    occurred_us = np.where(listed, log.occurred_us, log.occurred_us + by_us)
    return replace(log, occurred_us=occurred_us, fields=fields)


def states(view: FeatureView, log: EventLog) -> InitialStates:
    """The states of a view after all of it."""
    return initial_states(view, log, {ORIGIN: len(log)})


def popular(log: EventLog) -> dict[int, dict[int, int]]:
    """hop -> item id -> clicks, of the hops that recall still reads at the end of the day."""
    clicked = day0_clicks.clicks(log)
    hops = clicked.occurred_us // redis_keys.POPULAR_HOP_US
    counted: dict[int, dict[int, int]] = {}
    newest = int(hops.max(initial=0))
    for hop in range(newest - redis_keys.POPULAR_HOPS + 1, newest + 1):
        ids, counts = np.unique(clicked.field("item_id")[hops == hop], return_counts=True)
        if len(ids):
            counted[hop] = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return counted
