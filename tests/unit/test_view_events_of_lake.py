"""Tables of the lake as events for feature views, and from there to features."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from services.contract.feature_view import FeatureView
from services.contract.lake_schema import SCHEMAS
from services.contract.view_aggregates import Count, Feature, Ratio
from services.contract.view_asof import asof
from services.contract.view_events import Select, event_hash
from services.contract.view_log import Labels
from services.lake.view_events import event_log


def rows(table: str, *given: dict) -> pa.Table:
    schema = SCHEMAS[table]
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in given], schema)


IMPRESSIONS = rows(
    "impressions",
    {
        "record": "event",
        "partition": 2,
        "offset": 5,
        "appended_ms": 9,
        "event_id": "r:shown",
        "occurred_us": 1_000_000,
        "user_id": 2**63 + 1,
        "item_ids": [10, 11],
        "positions": [],
    },
    {"record": "heartbeat", "partition": 2, "offset": 6, "occurred_us": 2_000_000},
    {
        "record": "event",
        "partition": 0,
        "offset": 1,
        "appended_ms": 8,
        "event_id": "s:shown",
        "occurred_us": 3_000_000,
        "user_id": 4,
        "item_ids": [10, 12],
        "positions": [7, 3],
    },
)
ACTIONS = rows(
    "actions",
    {
        "record": "event",
        "partition": 1,
        "offset": 3,
        "appended_ms": 10,
        "event_id": "r:10:1",
        "occurred_us": 1_500_000,
        "user_id": 2**63 + 1,
        "item_id": 10,
        "kind": 1,
        "dwell_us": 2_500_000,
    },
    {"record": "malformed", "partition": 1, "offset": 4},
)
ITEMS = rows(
    "items",
    {"record": "event", "partition": 0, "offset": 0, "appended_ms": 1, "item_id": 10, "category": 6},
    {"record": "removed", "partition": 0, "offset": 1, "appended_ms": 2},
    {
        "record": "event",
        "partition": 0,
        "offset": 2,
        "appended_ms": 9,
        "item_id": 12,
        "category": 1,
        "created_us": 700,
    },
    {"record": "event", "partition": 0, "offset": 3, "appended_ms": 10, "item_id": 10, "category": 7},
)


def test_each_shown_item_and_each_action_is_an_event():
    events = event_log(IMPRESSIONS, ACTIONS, ITEMS).events()
    assert [(e.kind, e.origin, e.sequence, e.occurred_us) for e in events] == [
        ("shown", "impressions/2", 5 * 1024 + 1, 1_000_000),
        ("shown", "impressions/2", 5 * 1024 + 2, 1_000_000),
        ("shown", "impressions/0", 1 * 1024 + 1, 3_000_000),
        ("shown", "impressions/0", 1 * 1024 + 2, 3_000_000),
        ("acted", "actions/1", 3 * 1024, 1_500_000),
        ("listed", "catalog/0", 0, 0),
        ("listed", "catalog/0", 2 * 1024, 0),
        ("listed", "catalog/0", 3 * 1024, 0),
    ]
    # As of its append: 10 was listed anew at 10 ms; 12 was listed after it was shown, and never before.
    assert [(e.fields["user_id"], e.fields["item_id"], e.fields["category"]) for e in events[:5]] == [
        (2**63 + 1, 10, 6),
        (2**63 + 1, 11, 0),
        (4, 10, 6),
        (4, 12, 1),
        (2**63 + 1, 10, 7),
    ]
    assert [dict(e.fields) for e in events[5:]] == [
        {"item_id": 10, "category": 6, "created_at": 0},
        {"item_id": 12, "category": 1, "created_at": 700},
        {"item_id": 10, "category": 7, "created_at": 0},
    ]
    assert [e.fields["position"] for e in events[:4]] == [0, 1, 7, 3]
    assert (events[4].fields["action"], events[4].fields["dwell_s"]) == (1, 2_500_000)
    assert [e.event_hash for e in events[:2]] == [event_hash("r:shown") ^ 10, event_hash("r:shown") ^ 11]
    assert events[4].event_hash == event_hash("r:10:1")


def test_features_as_of_a_moment_come_from_the_lake():
    shown, acted = Select("shown"), Select("acted")
    features = (Feature("n", Count(shown)), Feature("ctr", Ratio(shown, acted, 0.5, 2.0)))
    view = FeatureView("v", 1, ("item_id",), ("shown", "acted"), features, 1_000_000)
    labels = Labels(
        np.array([1_500_000, 1_500_001, 9_000_000, 9_000_000]),
        {"item_id": np.array([10, 10, 10, 99], np.uint64)},
        np.array([9_000, 10_500, 20_000, 20_000]),
    )
    log = event_log(IMPRESSIONS, ACTIONS, ITEMS)
    found = asof(view, log, labels).values
    np.testing.assert_array_equal(found, np.array([[1, 1 / 3], [1, 2 / 3], [2, 2 / 4], [0, 0]], np.float32))
    # Appended at 9, 8 and 10 ms, served half a millisecond later. What happened at 3 s was there at 10 ms: it
    # overtook the request of 1.5 s, whose head, with the impression of 1 s, does not count then.
    served = asof(view, log, labels, "as_served", 500)
    assert served.values[:, 0].tolist() == [0, 0, 2, 0]


def test_an_empty_lake_has_no_events():
    assert len(event_log(IMPRESSIONS.slice(0, 0), ACTIONS.slice(0, 0), ITEMS.slice(0, 0))) == 0
