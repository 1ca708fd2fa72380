"""Bytes that processes agree on: view text, hashes, packed state. Golden: tests/golden/feature_view.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from services.contract.feature_view import FeatureView, view_from
from services.contract.view_aggregates import Count, Decayed, Distinct, Elapsed, Feature, LastK, Max, Min, Sum
from services.contract.view_codec import canonical
from services.contract.view_events import Condition, Event, Select, event_hash
from services.contract.view_fold import fold
from services.contract.view_plan import NONE_US, plan_of
from services.contract.view_read import read, records_of
from services.contract.view_registry import FeatureSet
from services.contract.view_state import ViewState

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "feature_view.json").read_text())
ACTED = Select("acted")
HOP = 60_000_000
VIEW = FeatureView(
    "golden",
    3,
    ("user_id", "category"),
    ("shown", "acted"),
    (
        Feature("shown", Count(Select("shown")), HOP, scale="log1p", divide=4.0),
        Feature("clicks", Decayed(Select("acted", (Condition("action", "in", (1, 2)),)), HOP), 2 * HOP),
        Feature("dwell", Sum(ACTED, "dwell_s"), limit=None),
        Feature("least", Min(ACTED, "dwell_s"), HOP, -1.0),
        Feature("most", Max(ACTED, "dwell_s")),
        Feature("items", Distinct(ACTED, "item_id", 5), limit=None),
        Feature("since", Elapsed(ACTED, "first"), limit=None),
        Feature("again", LastK(ACTED, ("item_id",), 2, "contains", "item_id")),
    ),
    HOP,
    (Condition("category", "ge", 0),),
    slack_hops=1,
    owner="tests",
)
START = 1_700_000_000_000_000


def events() -> list[Event]:
    who = {"user_id": 0x0102030405060708, "category": 7}
    found = []
    for index, (minute, kind) in enumerate(
        [(0, "acted"), (4, "shown"), (5, "acted"), (5, "shown"), (3, "acted")]
    ):
        fields = {"item_id": 0xA0 + index}
        fields |= (
            {"position": index}
            if kind == "shown"
            else {"action": 1 + index // 2, "dwell_s": index * 1_500_000}
        )
        at_us = START + minute * HOP + index
        found.append(Event(kind, at_us, event_hash(f"e{index}"), who | fields, "topic/0", index))
    return found


def state() -> bytes:
    value = None
    for event in events():
        value = fold(VIEW, value, event)
    assert value is not None
    return value


def test_the_text_and_hashes_of_a_view_are_golden():
    assert canonical(VIEW) == GOLDEN["text"]
    assert view_from(GOLDEN["text"]) == VIEW
    assert f"{VIEW.definition_hash:016x}" == GOLDEN["definition_hash"]
    assert f"{FeatureSet([VIEW]).schema_hash:016x}" == GOLDEN["schema_hash"]


def test_the_bytes_of_a_state_are_golden():
    assert state().hex() == GOLDEN["state"]
    assert ViewState.unpack(plan_of(VIEW), bytes.fromhex(GOLDEN["state"])).pack().hex() == GOLDEN["state"]
    assert VIEW.entity(events()[0]).hex() == "08070605040302010700000000000000"


def test_the_values_of_a_state_are_golden():
    at_us = np.array([START + 5 * HOP + 30_000_000])
    found = read(VIEW, records_of(plan_of(VIEW), [state()]), at_us, {"item_id": np.array([0xA4], np.uint64)})
    assert found.values.astype("<f4").tobytes().hex() == GOLDEN["values"]


def test_numpy_and_struct_see_the_same_fields():
    plan = plan_of(VIEW)
    record = records_of(plan, [state()])[0]
    unpacked = ViewState.unpack(plan, state())
    assert plan.dtype.itemsize == plan.layout.size == len(state())
    assert record["newest_us"] == unpacked.newest_us
    for index, (slot, place) in enumerate(zip(plan.slots, plan.places, strict=False)):
        tiles, base = record[f"tiles{index}"], record[f"base{index}"][0] if slot.has_base else None
        if slot.registers:
            assert unpacked.values[place.at] == tiles.tobytes()
            assert base is None or unpacked.values[place.base_at] == base.tobytes()
        else:
            assert unpacked.values[place.at : place.at + slot.tiles] == tiles.tolist()
            assert base is None or unpacked.values[place.base_at] == base
    for index in range(len(plan.recents)):
        kept = unpacked.recent(index)
        times = [us for us in record[f"recent{index}_us"].tolist() if us != NONE_US]
        assert times == [entry[0] for entry in kept]
