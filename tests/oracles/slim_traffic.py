"""Snapshots of real width under real batch features, whole and slim."""

from __future__ import annotations

import random

import numpy as np

from rec.events.v1 import events_pb2 as ev
from services.contract import batch_view, times
from services.contract.batch_view import Table
from tests.feature_kit import FEATURES

YEAR_US = 365 * 86_400 * 10**6


def catalogue(seed: int, items: int, now_us: int) -> list[tuple[int, int, int]]:
    """(item id, category, created_us) of items 1 to ``items``: old, new, not yet born, of unknown age."""
    rng = random.Random(seed)
    ages = [0, 1, 10**6, 9 * 60 * 10**6, 600 * 10**6, 86_400 * 10**6, 3 * YEAR_US, -(10**6)]
    return [
        (item, rng.randrange(64), 0 if rng.random() < 0.1 else now_us - rng.choice(ages))
        for item in range(1, items + 1)
    ]


def widened(record: ev.EventRecord, known: Table, seed: int) -> ev.EventRecord:
    """The snapshot with features of item_width: batch columns of ``known``, of items beyond it other ones."""
    rng = np.random.default_rng(seed)
    snapshot = record.snapshot
    ids = np.frombuffer(snapshot.item_ids, "<u8")
    rows = rng.standard_normal((len(ids), FEATURES.item_width)).astype("<f4")
    batch, found = known.columns_at(FEATURES, ids, times.to_us(snapshot.occurred_at))
    rows[np.ix_(found, FEATURES.batch)] = batch[found]
    made = ev.EventRecord()
    made.CopyFrom(record)
    made.snapshot.schema_hash = FEATURES.schema_hash
    made.snapshot.item_features = rows.tobytes()
    return made


def slimmed(record: ev.EventRecord, known: Table | None) -> ev.EventRecord:
    """As ranking writes it."""
    return ev.EventRecord(snapshot=batch_view.slim(record.snapshot, known, FEATURES))
